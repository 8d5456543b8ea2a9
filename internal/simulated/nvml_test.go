package simulated

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// callAll calls every method of an interface with zero arguments.
func callAll[T any](t *testing.T, target T, check func(method string, results []reflect.Value)) {
	t.Helper()
	methods := reflect.TypeFor[T]()
	for i := range methods.NumMethod() {
		method := methods.Method(i)
		var args []reflect.Value
		for j := range method.Type.NumIn() {
			args = append(args, reflect.Zero(method.Type.In(j)))
		}
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%v.%s panics: %v", methods, method.Name, r)
				}
			}()
			check(method.Name, reflect.ValueOf(target).MethodByName(method.Name).Call(args))
		}()
	}
}

func ignore(string, []reflect.Value) {}

func handle(t *testing.T, lib nvml.Interface, index int) nvml.Device {
	t.Helper()
	d, ret := lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		t.Fatalf("handle of GPU %d: %v", index, ret)
	}
	return d
}

func TestNoNVMLCallPanics(t *testing.T) {
	lib := New(DGXH200, "node-a").NVML()
	callAll(t, lib, ignore)
	callAll(t, handle(t, lib, 0), ignore)
	set, ret := lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		t.Fatal(ret)
	}
	callAll(t, set, ignore)
	if _, ret := handle(t, lib, 0).GetGpuInstanceProfileInfo(0); ret != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("a call that is not simulated answers %v", ret)
	}
}

func TestDeviceAttributes(t *testing.T) {
	for model, want := range map[Model]string{
		DGXH100: "NVIDIA H100 80GB HBM3 81559MiB Hopper Nvidia 9.0 0x233010de",
		DGXH200: "NVIDIA H200 143771MiB Hopper Nvidia 9.0 0x233510de",
	} {
		lib := New(model, "node-a").NVML()
		devices, err := device.New(lib).GetDevices()
		if err != nil || len(devices) != 8 {
			t.Fatalf("%d devices, %v", len(devices), err)
		}
		for i, d := range devices {
			name, _ := d.GetName()
			memory, _ := d.GetMemoryInfo()
			arch, err1 := d.GetArchitectureAsString()
			brand, err2 := d.GetBrandAsString()
			cc, err3 := d.GetCudaComputeCapabilityAsString()
			pci, _ := d.GetPciInfo()
			got := fmt.Sprintf("%s %dMiB %s %s %s %#x", name, memory.Total>>20, arch, brand, cc, pci.PciDeviceId)
			if got != want || err1 != nil || err2 != nil || err3 != nil {
				t.Errorf("GPU %d: %s, want %s", i, got, want)
			}
			minor, _ := d.GetMinorNumber()
			address, err := d.GetPCIBusID()
			if minor != i || address != pairs()[i].gpu || err != nil {
				t.Errorf("GPU %d: minor %d, address %s, %v", i, minor, address, err)
			}
			if pci.Bus == 0 || fmt.Sprintf("%02x", pci.Bus) != address[5:7] || text(pci.BusIdLegacy[:]) != strings.ToUpper(address) {
				t.Errorf("GPU %d: PCI info %+v", i, pci)
			}
			if nodes, ret := d.GetMemoryAffinity(2, nvml.AFFINITY_SCOPE_NODE); ret != nvml.SUCCESS || nodes[0] != 1<<pairs()[i].numa {
				t.Errorf("GPU %d: memory affinity %v, %v", i, nodes, ret)
			}
			if on, err := d.IsMigEnabled(); on || err != nil {
				t.Errorf("GPU %d: MIG enabled %v, %v", i, on, err)
			}
			if migs, err := d.GetMigDevices(); len(migs) > 0 || err != nil {
				t.Errorf("GPU %d: MIG devices %v, %v", i, migs, err)
			}
			if attached, err := d.IsFabricAttached(); attached || err != nil {
				t.Errorf("GPU %d: fabric %v, %v", i, attached, err)
			}
		}
	}
}

func text(chars []int8) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func TestHandles(t *testing.T) {
	m := New(DGXH200, "node-a")
	lib := m.NVML()
	for name, find := range map[string]func() (nvml.Device, nvml.Return){
		"UUID":          func() (nvml.Device, nvml.Return) { return lib.DeviceGetHandleByUUID(m.gpus[3].uuid) },
		"serial":        func() (nvml.Device, nvml.Return) { return lib.DeviceGetHandleBySerial(m.gpus[3].serial) },
		"address":       func() (nvml.Device, nvml.Return) { return lib.DeviceGetHandleByPciBusId("0000:61:00.0") },
		"NVIDIA's form": func() (nvml.Device, nvml.Return) { return lib.DeviceGetHandleByPciBusId("00000000:61:00.0") },
	} {
		if d, ret := find(); ret != nvml.SUCCESS || d != handle(t, lib, 3) {
			t.Errorf("by %s: %v", name, ret)
		}
	}
	if _, ret := lib.DeviceGetHandleByUUID("GPU-nobody"); ret != nvml.ERROR_NOT_FOUND {
		t.Errorf("unknown UUID: %v", ret)
	}
	if _, ret := lib.DeviceGetHandleByIndex(8); ret != nvml.ERROR_INVALID_ARGUMENT {
		t.Errorf("index 8: %v", ret)
	}
	// The library's functions are the methods of the handle.
	if name, ret := lib.DeviceGetName(handle(t, lib, 3)); name != "NVIDIA H200" || ret != nvml.SUCCESS {
		t.Errorf("DeviceGetName: %q, %v", name, ret)
	}
}

func TestTopologyAgreesWithSysfs(t *testing.T) {
	root := writtenSysfs(t, DGXH200)
	lib := New(DGXH200, "node-a").NVML()
	levels := map[string]nvml.GpuTopologyLevel{"NODE": nvml.TOPOLOGY_NODE, "SYS": nvml.TOPOLOGY_SYSTEM}
	for i := range pairs() {
		for j := range pairs() {
			want := nvml.TOPOLOGY_INTERNAL
			if i != j {
				want = levels[relation(t, root, pairs()[i].gpu, pairs()[j].gpu)]
			}
			got, ret := handle(t, lib, i).GetTopologyCommonAncestor(handle(t, lib, j))
			if got != want || ret != nvml.SUCCESS {
				t.Errorf("GPUs %d and %d: level %v, want %v (%v)", i, j, got, want, ret)
			}
		}
		if near, ret := handle(t, lib, i).GetTopologyNearestGpus(nvml.TOPOLOGY_NODE); len(near) != 3 || ret != nvml.SUCCESS {
			t.Errorf("GPU %d has %d neighbours on its node, want 3 (%v)", i, len(near), ret)
		}
	}
}

func TestNVLink(t *testing.T) {
	d := handle(t, New(DGXH200, "node-a").NVML(), 0)
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := d.GetNvLinkState(link)
		kind, _ := d.GetNvLinkRemoteDeviceType(link)
		active := ret == nvml.SUCCESS && state == nvml.FEATURE_ENABLED && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH
		if active != (link < 18) {
			t.Errorf("link %d to a switch: %v (%v)", link, active, ret)
		}
	}
}

func TestEvents(t *testing.T) {
	lib := New(DGXH200, "node-a").NVML()
	set, ret := lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		t.Fatal(ret)
	}
	d := handle(t, lib, 0)
	if ret := d.RegisterEvents(nvml.EventTypeXidCriticalError|nvml.EventTypeDoubleBitEccError, set); ret != nvml.SUCCESS {
		t.Errorf("register: %v", ret)
	}
	start := time.Now()
	if _, ret := set.Wait(20); ret != nvml.ERROR_TIMEOUT || time.Since(start) < 20*time.Millisecond {
		t.Errorf("wait of 20 ms: %v after %v", ret, time.Since(start))
	}
	done := make(chan nvml.Return)
	go func() {
		_, ret := lib.EventSetWait(set, 600_000)
		done <- ret
	}()
	if ret := lib.EventSetFree(set); ret != nvml.SUCCESS {
		t.Errorf("free: %v", ret)
	}
	if ret := <-done; ret == nvml.SUCCESS {
		t.Error("waiting on a freed set succeeds")
	}
}

func TestFailGPU(t *testing.T) {
	m := New(DGXH200, "node-a")
	lib := m.NVML()
	held := handle(t, lib, 2)
	m.FailGPU(2, nvml.ERROR_GPU_IS_LOST)
	m.FailGPU(99, nvml.ERROR_GPU_IS_LOST)

	if count, ret := lib.DeviceGetCount(); count != 8 || ret != nvml.SUCCESS {
		t.Errorf("count %d, %v", count, ret)
	}
	if _, ret := lib.DeviceGetHandleByIndex(2); ret != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("handle: %v", ret)
	}
	callAll(t, held, func(method string, results []reflect.Value) {
		if ret, ok := results[len(results)-1].Interface().(nvml.Return); ok && ret != nvml.ERROR_GPU_IS_LOST {
			t.Errorf("%s of the lost GPU: %v", method, ret)
		}
	})
	handle(t, lib, 3)

	m.FailGPU(2, nvml.SUCCESS)
	if uuid, ret := handle(t, lib, 2).GetUUID(); uuid != m.gpus[2].uuid || ret != nvml.SUCCESS {
		t.Errorf("mended: %q, %v", uuid, ret)
	}
}

func TestSymbols(t *testing.T) {
	lib := New(DGXH200, "node-a").NVML().Extensions()
	for symbol, want := range map[string]bool{
		"nvmlDeviceGetMigMode":        true,
		"nvmlDeviceGetGpuFabricInfo":  true,
		"nvmlInitWithFlags":           true,
		"nvmlInit_v2":                 true,
		"nvmlDeviceGetGpuFabricInfoV": false,
		"nvmlDeviceGetAddressingMode": false,
	} {
		if err := lib.LookupSymbol(symbol); (err == nil) != want {
			t.Errorf("LookupSymbol(%s): %v", symbol, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	m := New(DGXH200, "node-a")
	lib := m.NVML()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				if i == 0 {
					m.FailGPU(1, nvml.ERROR_GPU_IS_LOST)
				}
				if ret := useOnce(lib, i); ret != nvml.SUCCESS && i != 1 {
					t.Errorf("GPU %d: %v", i, ret)
				}
				if i == 0 {
					m.FailGPU(1, nvml.SUCCESS)
				}
			}
		})
	}
	wg.Wait()
}

// useOnce looks at a GPU from Init to Shutdown and returns what went wrong.
func useOnce(lib nvml.Interface, index int) nvml.Return {
	ret := lib.Init()
	if ret != nvml.SUCCESS {
		return ret
	}
	d, ret := lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return ret
	}
	if _, ret = d.GetMemoryInfo(); ret != nvml.SUCCESS {
		return ret
	}
	if _, ret = d.GetPciInfo(); ret != nvml.SUCCESS {
		return ret
	}
	return lib.Shutdown()
}
