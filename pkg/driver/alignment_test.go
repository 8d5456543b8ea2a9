package driver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	cdispec "tags.cncf.io/container-device-interface/specs-go"
)

const (
	ofGPU0 = `{"gpu":"0000:1b:00.0","gpuNUMANode":0,"relation":"PXB","vf":"0000:18:00.2","vfNUMANode":0}`
	ofGPU1 = `{"gpu":"0000:43:00.0","gpuNUMANode":0,"relation":"NODE","vf":"0000:18:00.2","vfNUMANode":0}`
	spared = `{"gpu":"0000:1b:00.0","gpuNUMANode":0,"relation":"PXB","vf":"0000:18:00.1","vfNUMANode":0}`
	cross1 = `{"gpu":"0000:43:00.0","gpuNUMANode":0,"relation":"NODE","vf":"0000:18:00.1","vfNUMANode":0}`
)

// data is what a status says of a device, in the order of the alphabet.
func data(pairs ...string) string {
	all := ""
	for n, p := range pairs {
		if n > 0 {
			all += ","
		}
		all += p
	}
	return `{"alignment":[` + all + `],"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"DeviceAlignment"}`
}

// A job can check how near its GPUs and VFs really are, however it asked for
// them, before it burns a night.
func TestAlignmentReallyAchieved(t *testing.T) {
	type seen struct{ Alignment, Nearest string }
	for name, tc := range map[string]struct {
		devices  []string
		metadata map[string]seen
		data     map[string]string
	}{
		"a pair": {
			[]string{"gpu-0-vf"}, map[string]seen{"gpu-0-vf": {"PXB", "0000:18:00.2"}},
			map[string]string{"gpu-0-vf": data(ofGPU0)},
		},
		"two pairs": {
			[]string{"gpu-0-vf", "gpu-1-vf"}, map[string]seen{"gpu-0-vf": {"PXB", "0000:18:00.2"}, "gpu-1-vf": {"NODE", "0000:18:00.1"}},
			map[string]string{"gpu-0-vf": data(ofGPU0, spared), "gpu-1-vf": data(ofGPU1, cross1)},
		},
		"single devices": {
			[]string{theVF, "gpu-1", "gpu-0"}, map[string]seen{
				"gpu-0": {"PXB", "0000:18:00.2"}, "gpu-1": {"NODE", "0000:18:00.2"}, theVF: {"PXB", "0000:1b:00.0"},
			},
			map[string]string{"gpu-0": data(ofGPU0), "gpu-1": data(ofGPU1), theVF: data(ofGPU1, ofGPU0)},
		},
		"GPUs alone": {[]string{"gpu-0", "gpu-1"}, map[string]seen{"gpu-0": {}, "gpu-1": {}}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newPairNode(t)
			d := n.start()
			n.statuses(d)
			claim := newClaim("a", tc.devices)
			n.createClaim(claim)
			metadata := map[string]seen{}
			for _, dev := range mustPrepare(t, d, claim) {
				s := seen{}
				if v := dev.Metadata.Attributes["alignment"].StringValue; v != nil {
					s.Alignment = *v
				}
				if v := dev.Metadata.Attributes["nearestPCIBusID"].StringValue; v != nil {
					s.Nearest = *v
				}
				metadata[dev.DeviceName] = s
			}
			if diff := cmp.Diff(tc.metadata, metadata); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			got := map[string]string{}
			n.deviceStatuses("a", func(all []resourceapi.AllocatedDeviceStatus) bool {
				for _, s := range all {
					got[s.Device] = string(s.Data.Raw)
				}
				return len(got) >= len(tc.data)
			})
			if diff := cmp.Diff(tc.data, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAlignmentStaysBesideTheAttachment(t *testing.T) {
	n := newPairNode(t)
	d := n.start()
	statuses := n.statuses(d)
	claim := newClaim("a", []string{"gpu-0-vf"})
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	statuses.Attached(t.Context(), "a")
	got := n.deviceStatuses("a", hasCondition("Ready"))
	if len(got) != 1 || got[0].Device != "gpu-0-vf" || got[0].NetworkData == nil || got[0].Data == nil || string(got[0].Data.Raw) != data(ofGPU0) {
		t.Errorf("want one entry with all: %+v", got)
	}
}

func TestNCCLIsToldTheRDMADevicesInTheOrderOfTheGPUs(t *testing.T) {
	for name, tc := range map[string]struct {
		off     bool
		devices []string
		given   map[string]string // RDMA devices by what the claim calls the VF
		want    string
	}{
		"pairs":            {false, []string{"gpu-1-vf", "gpu-0-vf"}, map[string]string{"gpu-0-vf": "mlx5_1", "gpu-1-vf": "mlx5_10"}, "NCCL_IB_HCA==mlx5_10,mlx5_1"},
		"single devices":   {false, []string{"gpu-1", spareVF, "gpu-0"}, map[string]string{spareVF: "mlx5_2"}, "NCCL_IB_HCA==mlx5_2"},
		"used as Ethernet": {false, []string{"gpu-0-vf"}, nil, ""},
		"not asked for":    {true, []string{"gpu-0-vf"}, map[string]string{"gpu-0-vf": "mlx5_1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newPairNode(t)
			n.placed.given = tc.given
			d := n.start()
			d.options.SetIBHCA = !tc.off
			mustPrepare(t, d, newClaim("a", tc.devices))
			raw, err := os.ReadFile(filepath.Join(n.cdiDir(), testDriver+"_vf_a.json"))
			if err != nil {
				t.Fatal(err)
			}
			var spec cdispec.Spec
			if err := json.Unmarshal(raw, &spec); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, env := range spec.ContainerEdits.Env {
				got += env
			}
			if got != tc.want {
				t.Errorf("environment %q, want %q", got, tc.want)
			}
			if len(spec.ContainerEdits.Hooks) != 1 {
				t.Errorf("hooks: %v", spec.ContainerEdits.Hooks)
			}
		})
	}
}
