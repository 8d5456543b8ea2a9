package simulated

import (
	"fmt"
	"path"
)

const (
	numaNodes    = 2
	coresPerNode = 56
	// threads counts the hardware threads of both sockets: 2 × Xeon Platinum
	// 8480C.
	threads = 2 * numaNodes * coresPerNode

	vfsPerPF = 8
)

// noNUMA is the number of the node of what belongs to none.
const noNUMA = -1

// gpuSite is a place for a GPU on the board.
type gpuSite struct {
	bdf string
	// numa may be noNUMA.
	numa int
	// parent is the path of the bridge above, below /sys/devices.
	parent string
}

func (g gpuSite) path() string { return path.Join(g.parent, g.bdf) }

// nic is one port of a ConnectX-7.
type nic struct {
	bdf      string
	numa     int
	parent   string
	rdma     string
	netdev   string
	ethernet bool
	// gpu is the index of the GPU beside the port, or -1 for a storage port.
	gpu int
	// node is 4 hexadecimal digits that differ between machines.
	node string
	// number counts the ports of the machine, in the order of the RDMA names.
	number int
}

func (n nic) path() string { return path.Join(n.parent, n.bdf) }

// vf returns the address of a virtual function. ConnectX-7 puts its VFs right
// behind the PF: offset 1, stride 1.
func (n nic) vf(index int) string {
	bus := n.bdf[:len("0000:18:")]
	devfn := index + 1
	return fmt.Sprintf("%s%02x.%x", bus, devfn>>3, devfn&7)
}

// vfRDMA names a VF's RDMA device as the kernel does when it probes the VFs
// after all the PFs, PF by PF.
func (n nic) vfRDMA(index int) string {
	return fmt.Sprintf("mlx5_%d", nicCount+n.gpu*vfsPerPF+index)
}

// nicCount is the number of ConnectX-7 ports: eight beside a GPU, four for
// storage.
const nicCount = 12

// complexes lists the bus numbers of the eight compute NICs. The GPU is three
// buses above its NIC, and the root bus three below.
func complexes() [8]int {
	return [8]int{0x18, 0x40, 0x4f, 0x5e, 0x9a, 0xc0, 0xce, 0xdc}
}

func numaOfBus(bus int) int {
	if bus < 0x80 {
		return 0
	}
	return 1
}

func bdf(bus, device, function int) string {
	return fmt.Sprintf("0000:%02x:%02x.%x", bus, device, function)
}

// firstSwitch is the path of the upstream port of the switch below the root
// port of a complex.
func firstSwitch(rootBus int) string {
	return path.Join(fmt.Sprintf("pci0000:%02x", rootBus), bdf(rootBus, 1, 0), bdf(rootBus+1, 0, 0))
}

func gpuSites() []gpuSite {
	var sites []gpuSite
	for _, bus := range complexes() {
		sites = append(sites, gpuSite{
			bdf:  bdf(bus+3, 0, 0),
			numa: numaOfBus(bus),
			// The first switch's second port, then a switch of its own.
			parent: path.Join(firstSwitch(bus-3), bdf(bus-1, 1, 0), bdf(bus+1, 0, 0), bdf(bus+2, 0, 0)),
		})
	}
	return sites
}

func newNICs(node string) []nic {
	rdma := [8]int{0, 3, 4, 5, 6, 9, 10, 11}
	var nics []nic
	for i, bus := range complexes() {
		nics = append(nics, nic{
			bdf: bdf(bus, 0, 0), numa: numaOfBus(bus), gpu: i, number: rdma[i],
			parent: path.Join(firstSwitch(bus-3), bdf(bus-1, 0, 0)),
			netdev: fmt.Sprintf("ibp%ds0", bus),
		})
	}
	nics = append(nics, storageNICs()...)
	for i := range nics {
		nics[i].node = node
		nics[i].rdma = fmt.Sprintf("mlx5_%d", nics[i].number)
	}
	return nics
}

// storageNICs are two cards with two ports each: InfiniBand and Ethernet.
func storageNICs() []nic {
	var nics []nic
	for i, bus := range []int{0x29, 0xaa} {
		first := []int{1, 7}[i]
		parent := path.Join(firstSwitch(bus-3), bdf(bus-1, 0, 0))
		nics = append(nics,
			nic{
				bdf: bdf(bus, 0, 0), numa: numaOfBus(bus), gpu: -1, number: first,
				parent: parent, netdev: fmt.Sprintf("ibp%ds0f0", bus),
			},
			nic{
				bdf: bdf(bus, 0, 1), numa: numaOfBus(bus), gpu: -1, number: first + 1,
				parent: parent, netdev: fmt.Sprintf("enp%ds0f1np1", bus), ethernet: true,
			})
	}
	return nics
}

// nvSwitches are the paths of the four NVSwitches, all below one PCIe switch.
func nvSwitches() []string {
	upstream := path.Join("pci0000:00", bdf(0, 0x0c, 0), bdf(3, 0, 0))
	var paths []string
	for i := range 4 {
		paths = append(paths, path.Join(upstream, bdf(4, i, 0), bdf(5+i, 0, 0)))
	}
	return paths
}
