package gpu

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func grant(name, address string) device.Grant {
	return device.Grant{
		Claim:    device.Claim{Namespace: "ml", Name: "train", UID: "123"},
		Request:  "gpus",
		Device:   name,
		Occupies: []string{"pci-" + address},
		Config:   v1alpha1.DefaultGpuConfig(),
	}
}

func nodes(edits *cdispec.ContainerEdits) []string {
	var out []string
	for _, node := range edits.DeviceNodes {
		out = append(out, node.Path)
	}
	slices.Sort(out)
	return out
}

func TestPrepare(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	f := New(m.opts)
	edits, err := f.Prepare(t.Context(), grant("gpu-3", "0000:61:00.0"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/dev/nvidia3"}, nodes(edits.Device)); diff != "" {
		t.Errorf("device nodes of the GPU (-want +got):\n%s", diff)
	}
	for _, want := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm"} {
		if !slices.Contains(nodes(edits.Common), want) {
			t.Errorf("common device nodes %v lack %s", nodes(edits.Common), want)
		}
	}
	if !slices.Contains(edits.Common.Env, "NVIDIA_VISIBLE_DEVICES=void") {
		t.Errorf("environment %v would let the nvidia runtime add all GPUs", edits.Common.Env)
	}
	var libcuda bool
	for _, mount := range edits.Common.Mounts {
		if mount.ContainerPath == "/usr/lib64/libcuda.so.550.54.15" {
			libcuda = mount.HostPath == driverRoot+"/usr/lib64/libcuda.so.550.54.15"
		}
	}
	if !libcuda {
		t.Errorf("libcuda is not mounted from the host's driver root: %+v", edits.Common.Mounts)
	}
	for _, hook := range append(slices.Clone(edits.Common.Hooks), edits.Device.Hooks...) {
		if hook.Path != m.opts.CDIHookPath {
			t.Errorf("hook %v is at %s", hook.Args, hook.Path)
		}
	}
	// What this process sees below its mount of the host is nothing to the
	// container runtime.
	for _, e := range []*cdispec.ContainerEdits{edits.Common, edits.Device} {
		if data, _ := json.Marshal(e); strings.Contains(string(data), m.host) {
			t.Errorf("the edits name paths that the host does not have: %s", data)
		}
	}
}

func TestPrepareAgain(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	f := New(m.opts)
	g := grant("gpu-3", "0000:61:00.0")
	first, err := f.Prepare(t.Context(), g)
	m.must(err)
	want, err := json.Marshal(first)
	m.must(err)
	looked := f.current().taken

	// What the caller does to its copy is its own affair.
	first.Common.Env[0] = "SPOILT=1"
	first.Common.Mounts[0].HostPath = "/spoilt"
	first.Device.DeviceNodes[0].Path = "/spoilt"

	g.AdminAccess = true
	again, err := f.Prepare(t.Context(), g)
	m.must(err)
	got, err := json.Marshal(again)
	m.must(err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the second time differs (-want +got):\n%s", diff)
	}
	if !f.current().taken.Equal(looked) {
		t.Error("the second time looked at the machine again")
	}
	m.must(f.Release(t.Context(), g))
	m.must(f.Release(t.Context(), grant("gpu-99", "0000:ff:00.0")))
}

// After a reboot the driver may number the GPUs otherwise: the address counts.
func TestPrepareGoesByAddress(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	edits, err := New(m.opts).Prepare(t.Context(), grant("gpu-0", "0000:df:00.0"))
	m.must(err)
	if diff := cmp.Diff([]string{"/dev/nvidia7"}, nodes(edits.Device)); diff != "" {
		t.Errorf("device nodes (-want +got):\n%s", diff)
	}
}

func TestPrepareErrors(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(m *machine, g *device.Grant)
		want  []string
	}{
		{
			name:  "GPU does not answer",
			spoil: func(m *machine, _ *device.Grant) { m.FailGPU(3, nvml.ERROR_GPU_IS_LOST) },
			want:  []string{"GPU 0000:61:00.0 cannot be used (NVMLHandle)", "ERROR_GPU_IS_LOST", "delete the pod"},
		},
		{
			name:  "GPU left the bus",
			spoil: func(m *machine, _ *device.Grant) { m.unplug("0000:61:00.0") },
			want:  []string{"GPU 0000:61:00.0 cannot be used (NotOnBus)", "no longer on the PCI bus", "delete the pod"},
		},
		{
			name: "wrong configuration",
			spoil: func(_ *machine, g *device.Grant) {
				g.Config = nil
			},
			want: []string{"use kind GpuConfig"},
		},
		{
			name:  "not a GPU",
			spoil: func(_ *machine, g *device.Grant) { g.Occupies = []string{"pci-somewhere"} },
			want:  []string{`PCI address "somewhere"`},
		},
		{
			name:  "unknown name",
			spoil: func(_ *machine, g *device.Grant) { g.Occupies, g.Device = nil, "gpu-3" },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachineWithDriver(t, simulated.DGXH200)
			f := New(m.opts)
			devices(t, f)
			g := grant("gpu-3", "0000:61:00.0")
			tc.spoil(m, &g)
			if tc.name == "GPU does not answer" {
				devices(t, f)
			}
			_, err := f.Prepare(t.Context(), g)
			if len(tc.want) == 0 {
				m.must(err)
				return
			}
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

// A file of the driver that has gone must not reach the container runtime,
// which would fail to mount it.
func TestPrepareNoticesAChangedDriver(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	f := New(m.opts)
	devices(t, f)
	m.must(os.Remove(m.path(driverRoot + "/usr/bin/nvidia-smi")))
	edits, err := f.Prepare(t.Context(), grant("gpu-3", "0000:61:00.0"))
	m.must(err)
	for _, mount := range edits.Common.Mounts {
		if strings.HasSuffix(mount.HostPath, "nvidia-smi") {
			t.Errorf("%s is mounted but has gone", mount.HostPath)
		}
	}
}
