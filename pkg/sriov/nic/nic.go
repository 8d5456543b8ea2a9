package nic

import (
	"net"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Link types, as users of SR-IOV write them in selectors.
const (
	Ether      = "ether"
	InfiniBand = "infiniband"
)

// Machine is what one look at the machine has found.
type Machine struct {
	// PFs are in the order of their addresses.
	PFs []PF
	// RDMAExclusive tells whether each RDMA device belongs to one network
	// namespace.
	RDMAExclusive bool
}

// PF is a physical function that can have VFs.
type PF struct {
	topology.Node
	// Netdev is the PF's interface. It is nil where its driver shows none.
	Netdev *kernel.Link
	// LinkType is [Ether], [InfiniBand] or empty where nothing tells.
	LinkType string
	// SpeedMbps is in Mbit/s, 0 where the kernel does not know it.
	SpeedMbps int
	// EswitchMode is "legacy" or "switchdev", and empty where the driver does
	// not say.
	EswitchMode string
	RDMA        *RDMA
	// TotalVFs is how many VFs the PF can have, and NumVFs how many it has.
	TotalVFs, NumVFs int
	// Model is the PCI subsystem, vendor and device, which sets one card apart
	// from another with the same chip. It is 0 where it cannot be read.
	Model uint32
	// VFDeviceID is the PCI device id of the PF's VFs.
	VFDeviceID uint32
	// VFOffset and VFStride are how far, in functions, the PF's first VF is
	// from the PF, and from one VF to the next. 0 means that it is not known.
	VFOffset, VFStride int
	// VFs are in the order of their numbers.
	VFs []VF
	// HostUse says what the host itself needs the PF for, such as "it has the
	// default route", and is empty for a PF that is free for pods.
	HostUse string
}

// Name is the name of the PF's interface, or empty.
func (p PF) Name() string {
	if p.Netdev == nil {
		return ""
	}
	return p.Netdev.Name
}

// VFAddress returns where the PF's VF with a number is, or is going to be. It
// is not ok where the kernel does not tell.
func (p PF) VFAddress(index int) (address topology.Address, ok bool) {
	a := p.Address
	if p.VFOffset <= 0 || index > 0 && p.VFStride <= 0 {
		return topology.Address{}, false
	}
	place := int(a.Bus)<<8 + int(a.Device)<<3 + int(a.Function) + p.VFOffset + index*p.VFStride
	if place > 0xffff {
		return topology.Address{}, false
	}
	a.Bus, a.Device, a.Function = uint8(place>>8), uint8(place>>3&0x1f), uint8(place&7)
	return a, true
}

// VF is a virtual function.
type VF struct {
	topology.Node
	// Index is the VF's number on its PF.
	Index int
	// Netdev is the VF's interface in the host's network namespace. It is nil
	// where there is none: a pod has it, or the VF's driver shows none.
	Netdev *kernel.Link
	RDMA   *RDMA
	// HostUse is as that of a PF.
	HostUse string
	// IOMMUGroup is the number of the VF's group, and empty without an IOMMU.
	IOMMUGroup string
	// Settings are what its PF says of the VF; see [kernel.VFSettings].
	Settings kernel.VFSettings
}

// RDMA is the RDMA device of a function.
type RDMA struct {
	// Name is such as "mlx5_0".
	Name string
	// State is that of port 1: "ACTIVE", "INIT", "DOWN"…, and LinkLayer
	// "InfiniBand" or "Ethernet". Both are empty where the device is in
	// another network namespace.
	State, LinkLayer string
	// RateMbps is the port's rate in Mbit/s, 0 where it is not known.
	RateMbps int
	// NodeGUID is zero or nil for an InfiniBand VF that was given none.
	NodeGUID net.HardwareAddr
	// CharDevices are its device nodes below /dev, such as
	// "infiniband/uverbs0", the ones every RDMA program needs
	// ("infiniband/rdma_cm") included.
	CharDevices []string
}
