package qemu

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
)

// Machine is what differs between guests.
type Machine struct {
	// Kernel and Initramfs are paths.
	Kernel, Initramfs string
	// Disk is the path of a disk's image; empty is none. What the guest writes
	// to it is lost.
	Disk string
	// Share is the folder that the guest sees as /host.
	Share string
	// Console is the file that gets the guest's console.
	Console string
	// CPUs and MemoryMiB are divided between the two NUMA nodes.
	CPUs, MemoryMiB int
	// Forwards are pairs of an address here and a port of the guest.
	Forwards []Forward
	// Isolated keeps the guest from connecting to anything outside.
	Isolated bool
	// Settings are given to init, by their names in package boot.
	Settings map[string]string
	// Append is added to the kernel's command line.
	Append string
}

// Forward lets TCP connections to an address here reach a port of the guest.
type Forward struct {
	Listen string
	Port   int
}

// PCIe buses of the two root complexes.
const (
	bus0 = 0x40
	bus1 = 0x80
)

// Arguments are QEMU's, but for those that say how to run it.
func (m Machine) Arguments() []string {
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
		"-machine", "q35,kernel-irqchip=split", "-cpu", "max", "-serial", "file:" + m.Console}
	args = append(args, m.numa()...)
	// With it VFs can be given to user space, as vfio-pci does.
	args = append(args, "-device", "intel-iommu,intremap=on")
	args = append(args, cards()...)
	args = append(args, m.services()...)
	return append(args, "-kernel", m.Kernel, "-initrd", m.Initramfs, "-append", m.commandLine())
}

func (m Machine) numa() []string {
	half, memory := m.CPUs/2, m.MemoryMiB/2
	args := []string{"-smp", fmt.Sprint(m.CPUs), "-m", fmt.Sprintf("%dM", 2*memory)}
	for node := range 2 {
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-ram,id=m%d,size=%dM", node, memory),
			"-numa", fmt.Sprintf("node,nodeid=%d,cpus=%d-%d,memdev=m%d", node, node*half, (node+1)*half-1, node))
	}
	return args
}

// cards is the tree of PCIe devices. All network cards are on one hub: what one
// sends, the others hear.
func cards() []string {
	devices := []string{
		fmt.Sprintf("pxb-pcie,id=root0,bus=pcie.0,bus_nr=%d,numa_node=0", bus0),
		fmt.Sprintf("pxb-pcie,id=root1,bus=pcie.0,bus_nr=%d,numa_node=1", bus1),
		"pcie-root-port,id=port0,bus=root0,chassis=1,slot=1",
		"x3130-upstream,id=switch0,bus=port0",
	}
	for slot, device := range []string{card(0), card(1), "edu,", "edu,"} {
		devices = append(devices,
			fmt.Sprintf("xio3130-downstream,id=down%d,bus=switch0,chassis=2,slot=%d", slot, slot+1),
			device+fmt.Sprintf("bus=down%d", slot))
	}
	for slot, device := range []string{card(2), "edu,"} {
		devices = append(devices,
			fmt.Sprintf("pcie-root-port,id=port1%d,bus=root1,chassis=3,slot=%d", slot, slot+1),
			device+fmt.Sprintf("bus=port1%d", slot))
	}
	var args []string
	for index := range 3 {
		args = append(args, "-netdev", fmt.Sprintf("hubport,id=wire%d,hubid=0", index))
	}
	for _, device := range devices {
		args = append(args, "-device", device)
	}
	return args
}

func card(index int) string {
	return fmt.Sprintf("igb,id=nic%d,netdev=wire%d,mac=52:54:00:00:10:%02x,", index, index, index)
}

// services are the devices by which guest and host talk; they are on the bus
// that belongs to no NUMA node.
func (m Machine) services() []string {
	network := "user,id=mgmt,ipv6=off,restrict=" + map[bool]string{true: "on", false: "off"}[m.Isolated]
	for _, forward := range m.Forwards {
		network += fmt.Sprintf(",hostfwd=tcp:%s-%s:%d", forward.Listen, boot.GuestAddr, forward.Port)
	}
	args := []string{
		"-netdev", network, "-device", "virtio-net-pci,bus=pcie.0,netdev=mgmt,mac=52:54:00:00:00:02,romfile=",
		"-fsdev", "local,id=share,security_model=none,multidevs=remap,path=" + comma(m.Share),
		"-device", "virtio-9p-pci,bus=pcie.0,fsdev=share,mount_tag=" + boot.ShareTag,
		"-device", "virtio-rng-pci,bus=pcie.0",
	}
	if m.Disk != "" {
		args = append(args,
			"-drive", "if=none,id=disk,format=raw,snapshot=on,cache=unsafe,discard=unmap,file="+comma(m.Disk),
			"-device", "virtio-blk-pci,bus=pcie.0,drive=disk")
	}
	return args
}

func (m Machine) commandLine() string {
	words := []string{"console=ttyS0", "panic=0", "intel_iommu=on", "mitigations=off", "loglevel=4", "no_timer_check"}
	names := make([]string, 0, len(m.Settings))
	for name := range m.Settings {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		words = append(words, name+"="+m.Settings[name])
	}
	if m.Append != "" {
		words = append(words, m.Append)
	}
	return strings.Join(words, " ")
}

// comma doubles the commas of a path, which separate options.
func comma(path string) string {
	return strings.ReplaceAll(filepath.Clean(path), ",", ",,")
}
