package qemu

import (
	"slices"
	"strings"
	"testing"
)

func example() Machine {
	return Machine{
		Kernel: "/k", Initramfs: "/i", Share: "/a,b", Console: "/c", CPUs: 2, MemoryMiB: 1024,
		Forwards: []Forward{{"127.0.0.1:4000", 1024}},
		Settings: map[string]string{"B": "2", "A": "1"},
	}
}

// has says whether the option is there with a value that has all the parts.
func has(args []string, option string, parts ...string) bool {
	for i := range len(args) - 1 {
		if args[i] == option && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(args[i+1], part) }) {
			return true
		}
	}
	return false
}

func TestArguments(t *testing.T) {
	args := example().Arguments()
	for _, want := range [][]string{
		{"-m", "1024M"}, {"-smp", "2"},
		{"-numa", "nodeid=0,cpus=0-0,"}, {"-numa", "nodeid=1,cpus=1-1,"}, {"-object", "id=m1,size=512M"},
		{"-device", "pxb-pcie", "numa_node=0", "bus_nr=64"}, {"-device", "pxb-pcie", "numa_node=1", "bus_nr=128"},
		{"-device", "igb,", "bus=down0"}, {"-device", "igb,", "bus=down1"}, {"-device", "igb,", "bus=port10"},
		{"-device", "edu,", "bus=down2"}, {"-device", "edu,", "bus=down3"}, {"-device", "edu,", "bus=port11"},
		{"-device", "intel-iommu"},
		{"-netdev", "user,", "hostfwd=tcp:127.0.0.1:4000-10.0.2.15:1024", "restrict=off"},
		{"-fsdev", "path=/a,,b"},
		{"-append", " A=1 B=2"},
	} {
		if !has(args, want[0], want[1:]...) {
			t.Errorf("no %v in %q", want, args)
		}
	}
	if has(args, "-drive") {
		t.Error("there is a disk that nobody asked for")
	}
}

func TestArgumentsOfFurtherMachines(t *testing.T) {
	m := example()
	m.Disk, m.Isolated, m.Append = "/d", true, "debug"
	args := m.Arguments()
	for _, want := range [][]string{
		{"-drive", "file=/d", "snapshot=on"}, {"-device", "virtio-blk-pci"}, {"-netdev", "user,", "restrict=on"}, {"-append", " debug"},
	} {
		if !has(args, want[0], want[1:]...) {
			t.Errorf("no %v in %q", want, args)
		}
	}
}

// Once there are expander bridges, QEMU would put a device that names no bus on
// any of them.
func TestEveryDeviceNamesItsBus(t *testing.T) {
	m := example()
	m.Disk = "/d"
	args := m.Arguments()
	for i, arg := range args {
		if arg == "-device" && !strings.Contains(args[i+1], "bus=") && !strings.HasPrefix(args[i+1], "intel-iommu") {
			t.Errorf("%s names no bus", args[i+1])
		}
	}
}
