package simulated

import (
	"fmt"
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// completeDevice corrects and completes one GPU, and returns the names of the
// methods that it answers.
func (m *Machine) completeDevice(s *server.Server, index int) []string {
	d, ok := s.Devices[index].(*server.Device)
	if !ok {
		// The mock makes no other type; a device left as it is still works.
		return nil
	}
	g := m.gpus[index]
	d.UUID, d.PciBusID = g.uuid, g.bdf
	m.completeIdentity(d, g)
	m.completeState(d)
	m.completeTopology(d, g, s)
	if !m.standIns {
		completeCPUs(d, g)
		completeNVLink(d)
	}
	completeEvents(d)
	disableMIG(d)
	return guard(&d.Device, g.state)
}

func (m *Machine) completeIdentity(d *server.Device, g gpu) {
	d.GetSerialFunc = answer(g.serial)
	d.GetPciInfoFunc = answer(pciInfo(g.bdf, m.model.pciID, m.model.subsystemID))
	d.GetPciInfoExtFunc = answer(pciInfoExt(pciInfo(g.bdf, m.model.pciID, m.model.subsystemID)))
	d.GetBoardIdFunc = answer(pciInfo(g.bdf, 0, 0).Bus << 8)
	d.GetModuleIdFunc = answer(g.index + 1)
	d.GetMultiGpuBoardFunc = answer(0)
	d.GetVbiosVersionFunc = answer("96.00.99.00.01")
	d.GetInforomImageVersionFunc = answer("G520.0200.00.05")
	d.GetGspFirmwareVersionFunc = answer(driverVersion)
	d.GetBusTypeFunc = answer(nvml.BusType(nvml.BUS_TYPE_PCIE))
	d.GetNumGpuCoresFunc = answer(132 * 128)
	d.GetMemoryBusWidthFunc = answer(m.model.busWidth)
	d.GetMaxPcieLinkGenerationFunc = answer(5)
	d.GetGpuMaxPcieLinkGenerationFunc = answer(5)
	d.GetCurrPcieLinkGenerationFunc = answer(5)
	d.GetMaxPcieLinkWidthFunc = answer(16)
	d.GetCurrPcieLinkWidthFunc = answer(16)
}

// completeState lets the GPU idle.
func (m *Machine) completeState(d *server.Device) {
	total := m.model.memoryMiB << 20
	d.GetMemoryInfoFunc = answer(nvml.Memory{Total: total, Free: total})
	d.GetMemoryInfo_v2Func = answer(nvml.Memory_v2{Total: total, Free: total})
	d.GetBAR1MemoryInfoFunc = answer(nvml.BAR1Memory{Bar1Total: 256 << 30, Bar1Free: 256 << 30})
	d.GetPersistenceModeFunc = answer(nvml.FEATURE_ENABLED)
	d.GetDisplayModeFunc = answer(nvml.FEATURE_DISABLED)
	d.GetDisplayActiveFunc = answer(nvml.FEATURE_DISABLED)
	d.GetComputeModeFunc = answer(nvml.COMPUTEMODE_DEFAULT)
	d.GetVirtualizationModeFunc = answer(nvml.GPU_VIRTUALIZATION_MODE_NONE)
	d.GetPerformanceStateFunc = answer(nvml.PSTATE_0)
	d.GetPowerUsageFunc = answer(uint32(76_000))
	d.GetPowerManagementLimitFunc = answer(uint32(700_000))
	d.GetPowerManagementDefaultLimitFunc = answer(uint32(700_000))
	d.GetEnforcedPowerLimitFunc = answer(uint32(700_000))
	d.GetUtilizationRatesFunc = answer(nvml.Utilization{})
	d.GetComputeRunningProcessesFunc = answer[[]nvml.ProcessInfo](nil)
	d.GetGraphicsRunningProcessesFunc = answer[[]nvml.ProcessInfo](nil)
	d.GetCurrentClocksEventReasonsFunc = answer(uint64(nvml.ClocksThrottleReasonGpuIdle))
	d.GetRetiredPagesPendingStatusFunc = answer(nvml.FEATURE_DISABLED)
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 30, nvml.SUCCESS }
	d.GetEccModeFunc = func() (nvml.EnableState, nvml.EnableState, nvml.Return) {
		return nvml.FEATURE_ENABLED, nvml.FEATURE_ENABLED, nvml.SUCCESS
	}
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
		return 0, nvml.SUCCESS
	}
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) {
		return 0, 0, false, false, nvml.SUCCESS
	}
}

// completeTopology answers from the same layout as sysfs. GetNumaNodeId stays
// "not supported": it is for machines whose GPU memory is a NUMA node, which
// these are not.
func (m *Machine) completeTopology(d *server.Device, g gpu, s *server.Server) {
	d.GetTopologyCommonAncestorFunc = func(other nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
		index, ret := indexOf(other)
		if ret != nvml.SUCCESS {
			return 0, ret
		}
		return common(g, m.gpus[index]), nvml.SUCCESS
	}
	d.GetTopologyNearestGpusFunc = func(level nvml.GpuTopologyLevel) ([]nvml.Device, nvml.Return) {
		var nearest []nvml.Device
		for i, other := range m.gpus {
			if i != g.index && common(g, other) == level {
				nearest = append(nearest, s.Devices[i])
			}
		}
		return nearest, nvml.SUCCESS
	}
	d.GetP2PStatusFunc = func(other nvml.Device, _ nvml.GpuP2PCapsIndex) (nvml.GpuP2PStatus, nvml.Return) {
		_, ret := indexOf(other)
		return nvml.P2P_STATUS_OK, ret
	}
	d.GetMemoryAffinityFunc = func(nodes int, _ nvml.AffinityScope) ([]uint, nvml.Return) {
		return bits(nodes, []int{g.numa})
	}
}

// completeCPUs is for GPUs beside simulated CPUs.
func completeCPUs(d *server.Device, g gpu) {
	d.GetCpuAffinityFunc = func(cpus int) ([]uint, nvml.Return) {
		return bits(cpus, cpusOf(g.numa))
	}
	d.GetCpuAffinityWithinScopeFunc = func(cpus int, _ nvml.AffinityScope) ([]uint, nvml.Return) {
		return bits(cpus, cpusOf(g.numa))
	}
}

// indexOf asks a handle for its index, so that a GPU that fails or a nil
// handle answer as they do to any other call.
func indexOf(d nvml.Device) (int, nvml.Return) {
	if d == nil {
		return 0, nvml.ERROR_INVALID_ARGUMENT
	}
	return d.GetIndex()
}

// bits is a mask in which the given bits below size are set.
func bits(size int, set []int) ([]uint, nvml.Return) {
	if size <= 0 {
		return nil, nvml.ERROR_INVALID_ARGUMENT
	}
	mask := make([]uint, (size+strconv.IntSize-1)/strconv.IntSize)
	for _, bit := range set {
		if bit >= 0 && bit < size {
			mask[bit/strconv.IntSize] |= 1 << (bit % strconv.IntSize)
		}
	}
	return mask, nvml.SUCCESS
}

// nvLinks is the number of links of a GPU; they go to the four NVSwitches, 5,
// 4, 4 and 5 of them.
const nvLinks = 18

func switchOfLink(link int) int {
	return []int{0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3}[link]
}

// link makes a function that answers for the links that exist.
func link[T any](value func(link int) T) func(int) (T, nvml.Return) {
	return func(link int) (T, nvml.Return) {
		if link < 0 || link >= nvLinks {
			var none T
			return none, nvml.ERROR_INVALID_ARGUMENT
		}
		return value(link), nvml.SUCCESS
	}
}

func completeNVLink(d *server.Device) {
	d.GetNvLinkStateFunc = link(func(int) nvml.EnableState { return nvml.FEATURE_ENABLED })
	d.GetNvLinkVersionFunc = link(func(int) uint32 { return 4 })
	d.GetNvLinkRemoteDeviceTypeFunc = link(func(int) nvml.IntNvLinkDeviceType { return nvml.NVLINK_DEVICE_TYPE_SWITCH })
	d.GetNvLinkRemotePciInfoFunc = link(func(l int) nvml.PciInfo {
		return pciInfo(bdf(5+switchOfLink(l), 0, 0), 0x22A310DE, 0x179610DE)
	})
	d.GetNvLinkCapabilityFunc = func(l int, _ nvml.NvLinkCapability) (uint32, nvml.Return) {
		return link(func(int) uint32 { return 1 })(l)
	}
	// A fabric within one machine has no cluster UUID.
	d.GetGpuFabricInfoFunc = answer(nvml.GpuFabricInfo{State: nvml.GPU_FABRIC_STATE_COMPLETED})
}

// disableMIG answers as a GPU with MIG off. The mock would create instances
// all the same, with places and ids that no GPU has.
func disableMIG(d *server.Device) {
	d.GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_DISABLE, nvml.SUCCESS
	}
	d.IsMigDeviceHandleFunc = answer(false)
	d.GetMaxMigDeviceCountFunc = answer(7)
	d.GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) {
		return nil, nvml.ERROR_NOT_FOUND
	}
	d.SetMigModeFunc = nil
	d.GetGpuInstanceProfileInfoFunc = nil
	d.GetGpuInstancePossiblePlacementsFunc = nil
	d.CreateGpuInstanceFunc = nil
	d.CreateGpuInstanceWithPlacementFunc = nil
	d.GetGpuInstancesFunc = nil
}

// pciInfo describes a PCI function; the ids hold the device above the vendor.
func pciInfo(address string, id, subsystem uint32) nvml.PciInfo {
	info := nvml.PciInfo{PciDeviceId: id, PciSubSystemId: subsystem}
	if n, err := fmt.Sscanf(address, "%x:%x:%x", &info.Domain, &info.Bus, &info.Device); n != 3 || err != nil {
		return info
	}
	copyString(info.BusId[:], longBusID(address))
	copyString(info.BusIdLegacy[:], longBusID(address)[4:])
	return info
}

func pciInfoExt(info nvml.PciInfo) nvml.PciInfoExt {
	return nvml.PciInfoExt{
		Domain: info.Domain, Bus: info.Bus, Device: info.Device,
		PciDeviceId: info.PciDeviceId, PciSubSystemId: info.PciSubSystemId,
		BaseClass: 0x03, SubClass: 0x02, BusId: info.BusId,
	}
}

func copyString(to []int8, from string) {
	for i := range min(len(from), len(to)-1) {
		to[i] = int8(from[i])
	}
}
