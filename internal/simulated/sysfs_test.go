package simulated

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

// pair is a GPU and the NIC beside it.
type pair struct {
	gpu, nic, rdma, netdev, root string
	numa                         int64
}

// pairs come from the network module table of the DGX H100/H200 user guide and
// published listings.
func pairs() []pair {
	return []pair{
		{"0000:1b:00.0", "0000:18:00.0", "mlx5_0", "ibp24s0", "pci0000:15", 0},
		{"0000:43:00.0", "0000:40:00.0", "mlx5_3", "ibp64s0", "pci0000:3d", 0},
		{"0000:52:00.0", "0000:4f:00.0", "mlx5_4", "ibp79s0", "pci0000:4c", 0},
		{"0000:61:00.0", "0000:5e:00.0", "mlx5_5", "ibp94s0", "pci0000:5b", 0},
		{"0000:9d:00.0", "0000:9a:00.0", "mlx5_6", "ibp154s0", "pci0000:97", 1},
		{"0000:c3:00.0", "0000:c0:00.0", "mlx5_9", "ibp192s0", "pci0000:bd", 1},
		{"0000:d1:00.0", "0000:ce:00.0", "mlx5_10", "ibp206s0", "pci0000:cb", 1},
		{"0000:df:00.0", "0000:dc:00.0", "mlx5_11", "ibp220s0", "pci0000:d9", 1},
	}
}

func writtenSysfs(t *testing.T, model Model) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "sys")
	if err := New(model, "node-a").WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// pciPath is where a device is below /sys/devices.
func pciPath(t *testing.T, root, address string) []string {
	t.Helper()
	resolved, err := filepath.EvalSymlinks(filepath.Join(root, "bus/pci/devices", address))
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(filepath.Join(root, "devices"), resolved)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(relative, "/")
}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

// relation is what nvidia-smi calls the way between two devices.
func relation(t *testing.T, root, a, b string) string {
	t.Helper()
	pathA, pathB := pciPath(t, root, a), pciPath(t, root, b)
	common := 0
	for common < min(len(pathA), len(pathB)) && pathA[common] == pathB[common] {
		common++
	}
	switch {
	case common == 0 && read(t, root, "bus/pci/devices", a, "numa_node") != read(t, root, "bus/pci/devices", b, "numa_node"):
		return "SYS"
	case common == 0:
		return "NODE"
	case common == 1:
		return "PHB"
	case len(pathA)-common <= 2 && len(pathB)-common <= 2:
		return "PIX"
	}
	return "PXB"
}

func TestEveryLinkOfSysfsResolves(t *testing.T) {
	root := writtenSysfs(t, DGXH200)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		if target, _ := os.Readlink(path); filepath.IsAbs(target) {
			t.Errorf("link %s is absolute: %s", path, target)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("link: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSysfsHasTheTopologyOfTheTable(t *testing.T) {
	for _, model := range []Model{DGXH100, DGXH200} {
		root := writtenSysfs(t, model)
		storage := []string{"0000:29:00.0", "0000:29:00.1", "0000:aa:00.0", "0000:aa:00.1"}
		for i, gpu := range pairs() {
			for j, other := range pairs() {
				want := "SYS"
				if i == j {
					want = "PXB"
				} else if gpu.numa == other.numa {
					want = "NODE"
				}
				if got := relation(t, root, gpu.gpu, other.nic); got != want {
					t.Errorf("%s: GPU %d and NIC %d are %s, want %s", model, i, j, got, want)
				}
			}
			for _, nic := range storage {
				if got := relation(t, root, gpu.gpu, nic); got != "NODE" && got != "SYS" {
					t.Errorf("%s: GPU %d and storage port %s are %s, want NODE or SYS", model, i, nic, got)
				}
			}
		}
	}
}

func TestUpstreamAttributesReadSysfs(t *testing.T) {
	root := writtenSysfs(t, DGXH200)
	from := deviceattribute.WithFSFromRoot(root)
	for _, p := range pairs() {
		for _, address := range []string{p.gpu, p.nic} {
			pcieRoot, err := deviceattribute.GetPCIeRootAttributeByPCIBusID(address, from)
			if err != nil {
				t.Fatal(err)
			}
			if *pcieRoot.Value.StringValue != p.root {
				t.Errorf("pcieRoot of %s = %s, want %s", address, *pcieRoot.Value.StringValue, p.root)
			}
			numa, err := deviceattribute.GetNUMANodeAttributeByPCIBusID(address, deviceattribute.ListAttribute, from)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]int64{p.numa}, numa.Value.IntValues); diff != "" {
				t.Errorf("NUMA nodes of %s (-want +got):\n%s", address, diff)
			}
		}
	}
	for cpu, want := range map[int]int{0: 0, 55: 0, 56: 1, 112: 0, 223: 1} {
		if got, err := deviceattribute.GetNUMANodeForCPU(cpu, from); err != nil || got != want {
			t.Errorf("CPU %d is on node %d, want %d (%v)", cpu, got, want, err)
		}
	}
}

func TestSysfsDescribesGPUs(t *testing.T) {
	for model, device := range map[Model]string{DGXH100: "0x2330", DGXH200: "0x2335"} {
		root := writtenSysfs(t, model)
		for _, p := range pairs() {
			dir := filepath.Join(root, "bus/pci/devices", p.gpu)
			got := []string{
				read(t, dir, "class"), read(t, dir, "vendor"), read(t, dir, "device"),
				filepath.Base(resolve(t, dir, "driver")), read(t, dir, "current_link_speed"),
			}
			want := []string{"0x030200", "0x10de", device, "nvidia", "32.0 GT/s PCIe"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: GPU %s (-want +got):\n%s", model, p.gpu, diff)
			}
		}
	}
}

func TestSysfsDescribesNICsAndVFs(t *testing.T) {
	root := writtenSysfs(t, DGXH200)
	seen := map[string]string{}
	for _, p := range pairs() {
		pf := filepath.Join(root, "bus/pci/devices", p.nic)
		got := []string{
			read(t, pf, "vendor"), read(t, pf, "device"), read(t, pf, "sriov_numvfs"),
			read(t, pf, "infiniband", p.rdma, "ports/1/link_layer"),
			filepath.Base(resolve(t, root, "class/net", p.netdev, "device")),
			filepath.Base(resolve(t, root, "class/infiniband", p.rdma, "device")),
		}
		if diff := cmp.Diff([]string{"0x15b3", "0x1021", "8", "InfiniBand", p.nic, p.nic}, got); diff != "" {
			t.Errorf("NIC %s (-want +got):\n%s", p.nic, diff)
		}
		for i := range 8 {
			vf := resolve(t, pf, fmt.Sprintf("virtfn%d", i))
			if resolve(t, vf, "physfn") != resolve(t, pf) {
				t.Errorf("physfn of %s is not %s", vf, p.nic)
			}
			if device := read(t, vf, "device"); device != "0x101e" {
				t.Errorf("VF %s has device id %s", vf, device)
			}
			guid := read(t, pf, "sriov", fmt.Sprint(i), "port")
			if other, taken := seen[guid]; taken {
				t.Errorf("VFs %s and %s share GUID %s", vf, other, guid)
			}
			seen[guid] = vf
		}
	}
	if last := filepath.Base(resolve(t, root, "bus/pci/devices/0000:18:00.0/virtfn7")); last != "0000:18:01.0" {
		t.Errorf("the eighth VF is %s, want 0000:18:01.0", last)
	}
	for class, want := range map[string]int{"net": 76, "infiniband": 76, "infiniband_verbs": 76} {
		entries, err := os.ReadDir(filepath.Join(root, "class", class))
		if err != nil || len(entries) != want {
			t.Errorf("class %s has %d devices, want %d (%v)", class, len(entries), want, err)
		}
	}
}

func TestSysfsIsMendedNotRewritten(t *testing.T) {
	root := filepath.Join(t.TempDir(), "sys")
	m := New(DGXH200, "node-a")
	if err := m.WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	untouched := filepath.Join(root, "devices/system/node/node0/distance")
	old := time.Unix(1, 0)
	if err := os.Chtimes(untouched, old, old); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(root, "bus/pci/devices/0000:1b:00.0/numa_node")
	if err := os.WriteFile(broken, []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	if got := read(t, broken); got != "0" {
		t.Errorf("numa_node = %s after the second write, want 0", got)
	}
	if info, err := os.Stat(untouched); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("a file that was right has been written again (%v)", err)
	}
}

func TestForeignFolderIsRefused(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m := New(DGXH200, "node-a")
	for name, write := range map[string]func(string) error{"WriteSysfs": m.WriteSysfs, "WriteDriverRoot": withSMI(t, m).WriteDriverRoot} {
		if err := write(root); err == nil || !strings.Contains(err.Error(), "name an empty folder") {
			t.Errorf("%s into a folder with other files: %v", name, err)
		}
	}
}

func resolve(t *testing.T, elements ...string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheNICsAreThoseOfSysfs(t *testing.T) {
	machine := New(DGXH200, "node-a")
	machine.Ethernet = true
	root := filepath.Join(t.TempDir(), "sys")
	if err := machine.WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	vfs := 0
	for _, port := range machine.NICs() {
		vfs += len(port.VFs)
		for _, n := range append([]NIC{port}, port.VFs...) {
			netType, layer := "1", "Ethernet"
			if n.InfiniBand {
				netType, layer = "32", "InfiniBand"
			}
			folder := filepath.Join(root, "bus/pci/devices", n.Address)
			for file, want := range map[string]string{
				"net/" + n.Netdev + "/address":                 n.HardwareAddress.String(),
				"net/" + n.Netdev + "/type":                    netType,
				"infiniband/" + n.RDMA + "/ports/1/link_layer": layer,
				"infiniband/" + n.RDMA + "/node_guid":          quads(hex.EncodeToString(n.GUID)),
			} {
				if got := read(t, folder, file); got != want {
					t.Errorf("%s of %s: got %q, want %q", file, n.Address, got, want)
				}
			}
			if len(port.VFs) > 0 && n.InfiniBand {
				t.Errorf("%s is InfiniBand, though the machine is set to Ethernet", n.Address)
			}
		}
	}
	if vfs != 64 {
		t.Errorf("%d VFs, want 64", vfs)
	}
}
