package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func TestDevices(t *testing.T) {
	for _, tc := range []struct {
		model   simulated.Model
		product string
		memory  string
	}{
		{model: simulated.DGXH100, product: "NVIDIA H100 80GB HBM3", memory: "81559Mi"},
		{model: simulated.DGXH200, product: "NVIDIA H200", memory: "143771Mi"},
	} {
		t.Run(string(tc.model), func(t *testing.T) {
			m := newMachineWithDriver(t, tc.model)
			m.wholeSysfs()
			inventory := devices(t, New(m.opts))
			if len(inventory.Faults) != 0 {
				t.Errorf("faults: %v", inventory.Faults)
			}
			want := []string{"gpu-0", "gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5", "gpu-6", "gpu-7"}
			if diff := cmp.Diff(want, names(inventory)); diff != "" {
				t.Fatalf("devices (-want +got):\n%s", diff)
			}
			uuid, _ := m.gpu(4).GetUUID()
			one := resourceapi.Counter{Value: resource.MustParse("1")}
			counters := map[string]resourceapi.Counter{
				"memory-slice-0": one, "memory-slice-1": one, "memory-slice-2": one, "memory-slice-3": one,
				"memory-slice-4": one, "memory-slice-5": one, "memory-slice-6": one, "memory-slice-7": one, "media": one,
			}
			if diff := cmp.Diff(resourceapi.CounterSet{Name: "gpu-4", Counters: counters}, inventory.Counters[4]); diff != "" {
				t.Errorf("counter set (-want +got):\n%s", diff)
			}
			gpu4 := device.Device{
				Name:     "gpu-4",
				Kind:     device.KindGPU,
				Occupies: []string{"pci-0000:9d:00.0"},
				Place:    &device.Place{PCI: "0000:9d:00.0"},
				Consumes: []resourceapi.DeviceCounterConsumption{{CounterSet: "gpu-4", Counters: counters}},
				Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
					"type":                            {StringValue: ptr.To("gpu")},
					"uuid":                            {StringValue: &uuid},
					"productName":                     {StringValue: ptr.To(tc.product)},
					"brand":                           {StringValue: ptr.To("Nvidia")},
					"architecture":                    {StringValue: ptr.To("Hopper")},
					"cudaComputeCapability":           {VersionValue: ptr.To("9.0.0")},
					"driverVersion":                   {VersionValue: ptr.To("550.54.15")},
					"cudaDriverVersion":               {VersionValue: ptr.To("12.4.0")},
					"index":                           {IntValue: ptr.To[int64](4)},
					"resource.kubernetes.io/pciBusID": {StringValue: ptr.To("0000:9d:00.0")},
					"resource.kubernetes.io/numaNode": {IntValue: ptr.To[int64](1)},
				},
				Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{
					"memory": {Value: resource.MustParse(tc.memory)},
				},
			}
			got := inventory.Devices[4]
			root := got.Attributes["resource.kubernetes.io/pcieRoot"].StringValue
			if root == nil || !strings.HasPrefix(*root, "pci0000:") {
				t.Errorf("got pcieRoot %v", root)
			}
			delete(got.Attributes, "resource.kubernetes.io/pcieRoot")
			if diff := cmp.Diff(gpu4, got); diff != "" {
				t.Errorf("gpu-4 (-want +got):\n%s", diff)
			}
		})
	}
}

// Nothing that the machine does not tell is published as if it did.
func TestDevicesWithoutPlace(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	file := filepath.Join(m.opts.SysfsRoot, "bus/pci/devices/0000:1b:00.0/numa_node")
	m.must(os.WriteFile(file, []byte("-1\n"), 0o644))
	withoutNode := devices(t, New(m.opts)).Devices[0]
	m.must(os.RemoveAll(filepath.Join(m.opts.SysfsRoot, "bus")))
	withoutSysfs := devices(t, New(m.opts)).Devices[0]
	for name, has := range map[resourceapi.QualifiedName][2]bool{
		"resource.kubernetes.io/pciBusID": {true, true},
		"resource.kubernetes.io/pcieRoot": {true, false},
		"resource.kubernetes.io/numaNode": {false, false},
	} {
		for i, d := range []device.Device{withoutNode, withoutSysfs} {
			if value, ok := d.Attributes[name]; ok != has[i] {
				t.Errorf("machine %d: %s present %t: %v", i, name, ok, value)
			}
		}
	}
}

type faultText struct{ Subject, Reason, Err string }

func faults(inventory device.Inventory) []faultText {
	var out []faultText
	for _, fault := range inventory.Faults {
		out = append(out, faultText{fault.Subject, fault.Reason, fault.Err.Error()})
	}
	return out
}

func TestFailingGPUsDoNotHideTheOthers(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	m.FailGPU(3, nvml.ERROR_GPU_IS_LOST)
	m.FailGPU(6, nvml.ERROR_UNKNOWN)
	f := New(m.opts)
	inventory := devices(t, f)
	if diff := cmp.Diff([]string{"gpu-0", "gpu-1", "gpu-2", "gpu-4", "gpu-5", "gpu-7"}, names(inventory)); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	want := []faultText{
		{"GPU 3 (0000:61:00.0)", ReasonHandle, "ask NVML for the GPU with index 3: ERROR_GPU_IS_LOST"},
		{"GPU 6 (0000:d1:00.0)", ReasonHandle, "ask NVML for the GPU with index 6: ERROR_UNKNOWN"},
	}
	if diff := cmp.Diff(want, faults(inventory)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}

	m.FailGPU(3, nvml.SUCCESS)
	m.FailGPU(6, nvml.SUCCESS)
	if got := devices(t, f); len(got.Devices) != 8 || len(got.Faults) != 0 {
		t.Errorf("after they were mended: devices %v, faults %v", names(got), faults(got))
	}
}

// migNVML has one GPU that is split.
type migNVML struct {
	nvml.Interface
	index int
}

func (n migNVML) DeviceGetHandleByIndex(index int) (nvml.Device, nvml.Return) {
	handle, ret := n.Interface.DeviceGetHandleByIndex(index)
	if index == n.index {
		return migGPU{handle}, ret
	}
	return handle, ret
}

type migGPU struct{ nvml.Device }

func (migGPU) GetMigMode() (int, int, nvml.Return) {
	return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
}

func TestMIGIsNotGivenAsAWhole(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	m.opts.OpenNVML = func(string) nvml.Interface { return migNVML{m.NVML(), 1} }
	inventory := devices(t, New(m.opts))
	if len(inventory.Devices) != 7 || len(inventory.Faults) != 1 {
		t.Fatalf("devices %v, faults %v", names(inventory), faults(inventory))
	}
	if got := inventory.Faults[0]; got.Subject != "GPU 1 (0000:43:00.0)" || got.Reason != ReasonMIG {
		t.Errorf("got %+v", got)
	}
}

func TestMissingDeviceNodeIsAFault(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	m.must(os.Remove(m.path(driverRoot + "/dev/nvidia2")))
	inventory := devices(t, New(m.opts))
	want := []faultText{{"GPU 2 (0000:52:00.0)", ReasonContainerEdits, "/dev/nvidia2 is not on the host: run nvidia-smi or nvidia-modprobe -c 2 there"}}
	if diff := cmp.Diff(want, faults(inventory)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestGPUThatTheDriverDoesNotHave(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	m.addFunction("0000:f0:00.0", "1", "vfio-pci")
	inventory := devices(t, New(m.opts))
	want := []faultText{{"GPU (0000:f0:00.0)", ReasonNotInDriver, "it is bound to the kernel driver vfio-pci: bind it to the driver nvidia to have it given out"}}
	if diff := cmp.Diff(want, faults(inventory)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if len(inventory.Devices) != 8 {
		t.Errorf("devices %v", names(inventory))
	}
}

func TestNoGPU(t *testing.T) {
	dir := t.TempDir()
	f := New(Options{SysfsRoot: dir, HostRoot: dir})
	inventory, err := f.Devices(t.Context())
	if err != nil || len(inventory.Devices) != 0 || len(inventory.Faults) != 0 {
		t.Fatalf("got %v, %v, want nothing and no error", inventory, err)
	}
	_, err = f.Prepare(t.Context(), grant("gpu-0", "0000:1b:00.0"))
	if err == nil || !strings.Contains(err.Error(), noGPU) {
		t.Errorf("prepare: got %v", err)
	}
}

func TestDriverErrors(t *testing.T) {
	for _, tc := range []struct {
		name       string
		spoil      func(m *machine)
		wantReason string
		wantText   string
	}{
		{
			name:       "not installed",
			spoil:      func(m *machine) { m.must(os.RemoveAll(m.path(driverRoot))) },
			wantReason: ReasonDriverMissing,
			wantText:   "this machine has 8 NVIDIA GPUs but no driver",
		},
		{
			name: "kernel module not loaded",
			spoil: func(m *machine) {
				m.opts.OpenNVML = func(string) nvml.Interface { return failingNVML{m.NVML(), nvml.ERROR_DRIVER_NOT_LOADED} }
			},
			wantReason: ReasonDriverNotReady,
			wantText:   "load the kernel module nvidia",
		},
		{
			name:       "no nvidia-uvm",
			spoil:      func(m *machine) { m.must(os.Remove(m.path(driverRoot + "/dev/nvidia-uvm"))) },
			wantReason: ReasonDriverNotReady,
			wantText:   "nvidia-modprobe -u -c 0",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachineWithDriver(t, simulated.DGXH200)
			tc.spoil(m)
			_, err := New(m.opts).Devices(t.Context())
			var driver *DriverError
			if !errors.As(err, &driver) {
				t.Fatalf("got %v, want a DriverError", err)
			}
			if driver.Reason != tc.wantReason || !strings.Contains(err.Error(), tc.wantText) {
				t.Errorf("got %s: %v", driver.Reason, err)
			}
		})
	}
}

// failingNVML does not start.
type failingNVML struct {
	nvml.Interface
	ret nvml.Return
}

func (n failingNVML) Init() nvml.Return { return n.ret }

func TestDriverReplaced(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	f := New(m.opts)
	devices(t, f)
	devices(t, f)
	if got := m.opened.Load(); got != 1 {
		t.Errorf("NVML was opened %d times for one driver", got)
	}
	folder := driverRoot + "/usr/lib64"
	install(t, m.host, folder, "550.54.15")
	devices(t, f)
	if got := m.opened.Load(); got != 2 {
		t.Errorf("NVML was opened %d times for a driver that was installed twice", got)
	}
	// The simulated NVML goes on to tell 550.54.15, as the real one does whose
	// library the process has loaded.
	install(t, m.host, folder, "560.28.03")
	_, err := f.Devices(t.Context())
	var driver *DriverError
	if !errors.As(err, &driver) || driver.Reason != ReasonDriverReplaced || !strings.Contains(err.Error(), "version 550.54.15 is loaded, version 560.28.03 is installed") {
		t.Errorf("got %v", err)
	}
}
