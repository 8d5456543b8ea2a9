package attach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

const (
	ports, vfsPerPort = 8, 16
	mellanox          = "0x15b3"
)

// tree writes a sysfs with the NICs of a large machine: ports with VFs, each
// with an interface and an RDMA device, as mlx5_core shows them. It keeps the
// answers that the kernel gives beside.
type tree struct {
	root  string
	links []kernel.Link
	rdma  []kernel.RDMALink
	errs  []error
}

// writeTree writes the files below root, which is empty.
func writeTree(root string) (*tree, error) {
	t := &tree{root: root}
	for port := range ports {
		bus := 0x10 + 0x18*port
		up := fmt.Sprintf("devices/pci0000:%02x/0000:%02x:01.0/0000:%02x:00.0", bus-1, bus-1, bus)
		pf := address(bus+1, 0)
		t.function(up, pf, port, -1)
		t.port(filepath.Join(up, pf), port)
		for vf := range vfsPerPort {
			name := address(bus+1, vf+1)
			t.function(up, name, port, vf)
			t.link(filepath.Join(up, name), "physfn", "../"+pf)
			t.link(filepath.Join(up, pf), "virtfn"+strconv.Itoa(vf), "../"+name)
		}
	}
	return t, errors.Join(t.errs...)
}

// address is that of a function that is so far behind the first of a bus.
func address(bus, function int) string {
	return fmt.Sprintf("0000:%02x:%02x.%x", bus, function>>3, function&7)
}

// function writes what a PF, for VF -1, and a VF have in common.
func (t *tree) function(up, name string, port, vf int) {
	dir, number := filepath.Join(up, name), len(t.links)
	numa := strconv.Itoa(port / (ports / 2))
	netdev, id := fmt.Sprintf("ens%df0", port), "0x1021"
	if vf >= 0 {
		netdev, id = fmt.Sprintf("ens%df0v%d", port, vf), "0x101e"
	}
	rdma := fmt.Sprintf("mlx5_%d", number)
	guid := fmt.Sprintf("0200:0000:0000:%04x", number+1)
	for file, text := range map[string]string{
		"vendor": mellanox, "device": id, "class": "0x020000", "numa_node": numa,
		"net/" + netdev + "/speed":                             "400000",
		"infiniband/" + rdma + "/node_guid":                    guid,
		"infiniband/" + rdma + "/ports/1/state":                "4: ACTIVE",
		"infiniband/" + rdma + "/ports/1/link_layer":           "Ethernet",
		"infiniband/" + rdma + "/ports/1/rate":                 "400 Gb/sec (4X NDR)",
		fmt.Sprintf("infiniband_verbs/uverbs%d/ibdev", number): rdma,
		fmt.Sprintf("infiniband_mad/umad%d/ibdev", number):     rdma,
	} {
		t.file(dir, file, text)
	}
	above, _ := filepath.Rel(dir, ".") // of relative paths below the root
	t.link(dir, "driver", filepath.Join(above, "bus/pci/drivers/mlx5_core"))
	t.link(dir, "iommu_group", filepath.Join(above, "kernel/iommu_groups", strconv.Itoa(number)))
	t.link("bus/pci/devices", name, filepath.Join("../../..", dir))

	mac := net.HardwareAddr{2, 0, 0, 0, byte(port), byte(vf + 1)}
	t.links = append(t.links, kernel.Link{
		Index: number + 2, Name: netdev, Device: name, Type: "ether", HardwareAddress: mac, MTU: 1500, Up: true, Carrier: true,
	})
	t.rdma = append(t.rdma, kernel.RDMALink{Name: rdma, NodeGUID: fmt.Sprintf("02:00:00:00:00:00:%02x:%02x", (number+1)>>8, (number+1)&0xff)})
}

// port writes what a PF alone has.
func (t *tree) port(dir string, port int) {
	for file, text := range map[string]string{
		"sriov_totalvfs": strconv.Itoa(vfsPerPort), "sriov_numvfs": strconv.Itoa(vfsPerPort),
		"sriov_vf_device": "101e", "sriov_offset": "1", "sriov_stride": "1",
	} {
		t.file(dir, file, text)
	}
	pf := &t.links[len(t.links)-1]
	pf.Port, pf.VFs = "p0", map[int]kernel.VFSettings{}
	for vf := range vfsPerPort {
		state := "auto"
		pf.VFs[vf] = kernel.VFSettings{HardwareAddress: net.HardwareAddr{2, 0, 0, 0, byte(port), byte(vf + 1)}, LinkState: &state}
	}
}

func (t *tree) file(dir, name, text string) {
	path := filepath.Join(t.root, dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text+"\n"), 0o600)
	}
	t.errs = append(t.errs, err)
}

func (t *tree) link(dir, name, target string) {
	path := filepath.Join(t.root, dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.Symlink(target, path)
	}
	t.errs = append(t.errs, err)
}
