package simulated

import (
	"fmt"
	"path"
	"strings"
)

// WriteSysfs writes below root what such a machine shows below /sys: the PCI
// tree with GPUs, NICs, their VFs, NVSwitches and the bridges between, the
// network and RDMA classes, CPUs and NUMA nodes. Writing again mends what
// differs. root must be empty or written by an earlier call. A machine that
// [NewAt] made has nothing to write.
func (m *Machine) WriteSysfs(root string) error {
	if m.standIns {
		return fmt.Errorf("writing the sysfs tree of a simulated %s: %w", m.model.name, errStandIns)
	}
	s := &sysfs{tree: tree{}, bridges: map[string]bool{}}
	for _, g := range m.gpus {
		s.addGPU(m.model, g)
	}
	for i, p := range nvSwitches() {
		s.addNVSwitch(p, i)
	}
	for _, n := range m.ports() {
		s.addNIC(n)
	}
	s.addSystem()
	if err := s.write(root); err != nil {
		return fmt.Errorf("writing the sysfs tree of a simulated %s: %w", m.model.name, err)
	}
	return nil
}

// sysfs collects a sysfs tree.
type sysfs struct {
	tree
	bridges map[string]bool
	groups  int
	netdevs int
}

// function is a PCI function as sysfs shows it.
type function struct {
	// path is the place below /sys/devices.
	path string
	// class, vendor and the rest are hexadecimal, without 0x.
	class, vendor, device, revision string
	subVendor, subDevice            string
	driver                          string
	numa                            int
	// link is the speed and width of the PCIe link, "" for VFs.
	speed, width string
}

func (f function) bdf() string { return path.Base(f.path) }
func (f function) dir() string { return path.Join("devices", f.path) }

func (s *sysfs) addGPU(m model, g gpu) {
	s.addEndpoint(function{
		path: g.path(), numa: g.numa, class: "030200", revision: "a1", driver: "nvidia",
		vendor: "10de", device: fmt.Sprintf("%04x", m.pciID>>16),
		subVendor: "10de", subDevice: fmt.Sprintf("%04x", m.subsystemID>>16),
		speed: "32.0 GT/s PCIe", width: "16",
	})
}

func (s *sysfs) addNVSwitch(p string, index int) {
	f := function{
		path: p, class: "068000", revision: "a1", driver: "nvidia-nvswitch",
		vendor: "10de", device: "22a3", subVendor: "10de", subDevice: "1796",
		speed: "16.0 GT/s PCIe", width: "2",
	}
	s.addEndpoint(f)
	s.file(path.Join(f.dir(), "label"), fmt.Sprintf("NVSwitch %d", index))
}

// addEndpoint adds a function in an IOMMU group of its own, and the bridges
// above it.
func (s *sysfs) addEndpoint(f function) {
	s.addBridges(path.Dir(f.path), f.numa)
	s.addFunction(f)
	group := path.Join("kernel/iommu_groups", fmt.Sprint(s.groups))
	s.groups++
	s.link(path.Join(f.dir(), "iommu_group"), group)
	s.link(path.Join(group, "devices", f.bdf()), f.dir())
	s.file(path.Join(group, "type"), "identity")
}

// addBridges adds the bridges on the way down to a device: the root port is an
// Intel one, what is below it belongs to Broadcom PCIe switches.
func (s *sysfs) addBridges(p string, numa int) {
	parts := strings.Split(p, "/")
	s.file(path.Join("devices", parts[0], "pci_bus", strings.TrimPrefix(parts[0], "pci"), "cpulistaffinity"), cpuList(numa))
	for depth := 2; depth <= len(parts); depth++ {
		bridge := path.Join(parts[:depth]...)
		if s.bridges[bridge] {
			continue
		}
		s.bridges[bridge] = true
		f := function{
			path: bridge, numa: numa, class: "060400", revision: "b0", driver: "pcieport",
			vendor: "1000", device: "c030", subVendor: "1000", subDevice: "100b",
			speed: "32.0 GT/s PCIe", width: "16",
		}
		if depth == 2 {
			f.vendor, f.device, f.revision = "8086", "352a", "30"
			f.subVendor, f.subDevice = "8086", "0000"
		}
		s.addFunction(f)
	}
}

func (s *sysfs) addFunction(f function) {
	dir := f.dir()
	for name, text := range map[string]string{
		"class":            "0x" + f.class,
		"vendor":           "0x" + f.vendor,
		"device":           "0x" + f.device,
		"revision":         "0x" + f.revision,
		"subsystem_vendor": "0x" + f.subVendor,
		"subsystem_device": "0x" + f.subDevice,
		"numa_node":        fmt.Sprint(f.numa),
		"local_cpulist":    cpuList(f.numa),
		"local_cpus":       cpuMask(f.numa),
		"enable":           "1",
		"driver_override":  "(null)",
		"uevent":           f.uevent(),
		"modalias":         f.modalias(),
	} {
		s.file(path.Join(dir, name), text)
	}
	if f.speed != "" {
		for _, which := range []string{"current", "max"} {
			s.file(path.Join(dir, which+"_link_speed"), f.speed)
			s.file(path.Join(dir, which+"_link_width"), f.width)
		}
	}
	s.link(path.Join(dir, "subsystem"), "bus/pci")
	s.link(path.Join(dir, "driver"), path.Join("bus/pci/drivers", f.driver))
	s.link(path.Join("bus/pci/drivers", f.driver, f.bdf()), dir)
	s.link(path.Join("bus/pci/devices", f.bdf()), dir)
}

func (f function) uevent() string {
	return strings.Join([]string{
		"DRIVER=" + f.driver,
		"PCI_CLASS=" + strings.ToUpper(strings.TrimLeft(f.class, "0")),
		"PCI_ID=" + strings.ToUpper(f.vendor+":"+f.device),
		"PCI_SUBSYS_ID=" + strings.ToUpper(f.subVendor+":"+f.subDevice),
		"PCI_SLOT_NAME=" + f.bdf(),
		"MODALIAS=" + f.modalias(),
	}, "\n")
}

func (f function) modalias() string {
	return fmt.Sprintf("pci:v0000%sd0000%ssv0000%ssd0000%sbc%ssc%si%s",
		strings.ToUpper(f.vendor), strings.ToUpper(f.device),
		strings.ToUpper(f.subVendor), strings.ToUpper(f.subDevice),
		strings.ToUpper(f.class[0:2]), strings.ToUpper(f.class[2:4]), strings.ToUpper(f.class[4:6]))
}
