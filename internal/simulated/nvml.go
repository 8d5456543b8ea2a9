package simulated

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// newNVML corrects and completes go-nvml's mock of the machine.
func (m *Machine) newNVML() *server.Server {
	s := m.model.newServer(gpus.Multiple(len(m.gpus), m.model.config)...)
	s.DriverVersion = driverVersion

	known := map[string]bool{}
	for i := range m.gpus {
		for _, name := range m.completeDevice(s, i) {
			known["nvmlDevice"+name] = true
		}
	}
	m.completeLibrary(s)
	for _, name := range guard(&s.Interface, working) {
		known["nvml"+name] = true
	}
	version := regexp.MustCompile(`_v\d+$`)
	s.LookupSymbolFunc = func(symbol string) error {
		if known[symbol] || known[version.ReplaceAllString(symbol, "")] {
			return nil
		}
		return fmt.Errorf("symbol %s is not in the simulated NVML: %w", symbol, nvml.ERROR_FUNCTION_NOT_FOUND)
	}
	return s
}

func working() nvml.Return { return nvml.SUCCESS }

func (g gpu) state() nvml.Return { return nvml.Return(g.fault.Load()) }

func (m *Machine) completeLibrary(s *server.Server) {
	m.completeHandles(s)
	s.InitWithFlagsFunc = func(uint32) nvml.Return { return nvml.SUCCESS }
	s.ErrorStringFunc = func(ret nvml.Return) string { return ret.String() }
	s.SystemGetCudaDriverVersion_v2Func = s.SystemGetCudaDriverVersionFunc
	s.GetExcludedDeviceCountFunc = answer(0)
	s.UnitGetCountFunc = answer(0)
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return newEventSet(), nvml.SUCCESS
	}
}

// completeHandles makes the ways to a GPU answer as the library does: an
// address may be written long or short, in either case, and what is not there
// is "not found".
func (m *Machine) completeHandles(s *server.Server) {
	handle := func(found func(gpu) bool) (nvml.Device, nvml.Return) {
		for i, g := range m.gpus {
			if !found(g) {
				continue
			}
			if ret := g.state(); ret != nvml.SUCCESS {
				return nil, ret
			}
			return s.Devices[i], nvml.SUCCESS
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	s.DeviceGetHandleByIndexFunc = func(index int) (nvml.Device, nvml.Return) {
		device, ret := handle(func(g gpu) bool { return g.index == index })
		if ret == nvml.ERROR_NOT_FOUND {
			ret = nvml.ERROR_INVALID_ARGUMENT
		}
		return device, ret
	}
	s.DeviceGetHandleByUUIDFunc = func(uuid string) (nvml.Device, nvml.Return) {
		return handle(func(g gpu) bool { return g.uuid == uuid })
	}
	s.DeviceGetHandleBySerialFunc = func(serial string) (nvml.Device, nvml.Return) {
		return handle(func(g gpu) bool { return g.serial == serial })
	}
	s.DeviceGetHandleByPciBusIdFunc = func(id string) (nvml.Device, nvml.Return) {
		return handle(func(g gpu) bool {
			return strings.EqualFold(g.bdf, id) || strings.EqualFold(longBusID(g.bdf), id)
		})
	}
}

// answer makes a function that always succeeds with the same value.
func answer[T any](value T) func() (T, nvml.Return) {
	return func() (T, nvml.Return) { return value, nvml.SUCCESS }
}

// longBusID is a PCI address in NVIDIA's form: 00000000:1B:00.0.
func longBusID(bdf string) string {
	return "0000" + strings.ToUpper(bdf)
}

// common tells how two GPUs are joined, by the tree that sysfs shows.
func common(a, b gpu) nvml.GpuTopologyLevel {
	pathA, pathB := strings.Split(a.parent, "/"), strings.Split(b.parent, "/")
	shared := 0
	for shared < min(len(pathA), len(pathB)) && pathA[shared] == pathB[shared] {
		shared++
	}
	switch {
	case a.index == b.index:
		return nvml.TOPOLOGY_INTERNAL
	case shared > 1 && max(len(pathA), len(pathB)) <= shared+1:
		return nvml.TOPOLOGY_SINGLE
	case shared > 1:
		return nvml.TOPOLOGY_MULTIPLE
	case shared == 1 && a.parent != "":
		return nvml.TOPOLOGY_HOSTBRIDGE
	case a.numa == b.numa:
		return nvml.TOPOLOGY_NODE
	}
	return nvml.TOPOLOGY_SYSTEM
}
