package simulated

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
)

// NIC is one port of the machine's network cards, or a virtual function (VF)
// of one, as software above PCI sees it.
type NIC struct {
	// Address is the PCI address, Netdev the network interface and RDMA the
	// RDMA device.
	Address, Netdev, RDMA string
	// InfiniBand is the link type; everything else is Ethernet.
	InfiniBand bool
	// GUID is that of the RDMA device, and HardwareAddress the interface's.
	GUID, HardwareAddress net.HardwareAddr
	// VFs are in the order of their numbers.
	VFs []NIC
}

// NICs returns the machine's ports: first those beside a GPU, in the order of
// the GPUs, then those for storage.
func (m *Machine) NICs() []NIC {
	var nics []NIC
	for _, n := range m.ports() {
		port := n.describe(n.bdf, n.netdev, n.rdma, 0)
		for i := range n.vfs() {
			port.VFs = append(port.VFs, n.describe(n.vf(i), n.vfNetdev(i), n.vfRDMA(i), i+1))
		}
		nics = append(nics, port)
	}
	return nics
}

// ports are the machine's, with the link type that they are set to.
func (m *Machine) ports() []nic {
	var ports []nic
	for _, n := range m.nics {
		n.ethernet = n.ethernet || m.Ethernet && n.gpu >= 0
		ports = append(ports, n)
	}
	return ports
}

// describe returns the port itself for function 0, and VF i for i+1.
func (n nic) describe(address, netdev, rdma string, function int) NIC {
	guid := n.guid(function)
	return NIC{
		Address: address, Netdev: netdev, RDMA: rdma, InfiniBand: !n.ethernet,
		GUID:            octets(guid),
		HardwareAddress: octets(strings.ReplaceAll(n.hardwareAddress(guid), ":", "")),
	}
}

func (n nic) hardwareAddress(guid string) string {
	if n.ethernet {
		return colons(guid[4:])
	}
	return ipoibPrefix + colons(guid)
}

// vfs is how many virtual functions the port has.
func (n nic) vfs() int {
	if n.gpu < 0 {
		return 0
	}
	return vfsPerPF
}

func (n nic) vfNetdev(index int) string { return fmt.Sprintf("%sv%d", n.netdev, index) }

// rdmaDevices is how many RDMA devices the machine has: one for each port and
// each VF.
func (m *Machine) rdmaDevices() int {
	count := 0
	for _, n := range m.nics {
		count += 1 + n.vfs()
	}
	return count
}

// octets is for digits that this package has made, which are always right.
func octets(digits string) net.HardwareAddr {
	decoded, err := hex.DecodeString(digits)
	if err != nil {
		return nil
	}
	return decoded
}
