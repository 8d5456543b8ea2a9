package nickernel

import (
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// namespace is a real network namespace in which the interfaces of simulated
// NICs look like those of real ones.
type namespace struct {
	kernel.Namespace
	kernel *Kernel
	handle *netlink.Handle
	isHost bool
}

// Close does nothing for the host's.
func (n *namespace) Close() error {
	if n.isHost && n == n.kernel.host {
		return nil
	}
	n.handle.Close()
	return n.Namespace.Close()
}

// Links lists the interfaces. Those of simulated NICs have the PCI address,
// the type and the VFs that real ones have.
func (n *namespace) Links() ([]kernel.Link, error) {
	links, err := n.Namespace.Links()
	if err != nil {
		return nil, err
	}
	made, err := list(n.handle)
	if err != nil {
		return nil, err
	}
	addresses := map[int]string{}
	for _, link := range made {
		addresses[link.Attrs().Index] = addressOf(link)
	}
	for i := range links {
		if at, ok := n.kernel.places[addresses[links[i].Index]]; ok {
			if err := n.disguise(&links[i], at); err != nil {
				return nil, err
			}
		}
	}
	return links, nil
}

func (n *namespace) disguise(link *kernel.Link, at place) error {
	link.Device, link.Type, link.Port = at.nic.Address, "ether", ""
	if at.nic.InfiniBand {
		link.Type, link.HardwareAddress = "infiniband", at.nic.HardwareAddress
	}
	if at.vf >= 0 || len(at.nic.VFs) == 0 {
		return nil
	}
	link.VFs = map[int]kernel.VFSettings{}
	for i, vf := range at.nic.VFs {
		settings, err := n.kernel.firmware.load(vf.Address)
		if err != nil {
			return err
		}
		link.VFs[i] = settings.shown()
	}
	return nil
}

// Move moves an interface to another namespace of this kernel.
func (n *namespace) Move(index int, to kernel.Namespace) error {
	if simulated, ok := to.(*namespace); ok {
		to = simulated.Namespace
	}
	return n.Namespace.Move(index, to)
}

// SetVF changes settings of a VF of a simulated port.
func (n *namespace) SetVF(pf, vf int, settings kernel.VFSettings) error {
	link, err := n.handle.LinkByIndex(pf)
	if err != nil {
		return fmt.Errorf("find the interface with index %d: %w", pf, err)
	}
	at, ours := n.kernel.places[addressOf(link)]
	if !ours {
		return n.Namespace.SetVF(pf, vf, settings)
	}
	if at.vf >= 0 || vf < 0 || vf >= len(at.nic.VFs) {
		return fmt.Errorf("%s has no VF %d: %w", link.Attrs().Name, vf, unix.EINVAL)
	}
	return n.kernel.setVF(at.nic.VFs[vf], vf, settings)
}

// RDMALinks lists the RDMA devices. All namespaces share them.
func (n *namespace) RDMALinks() ([]kernel.RDMALink, error) {
	var links []kernel.RDMALink
	for i, address := range slices.Sorted(maps.Keys(n.kernel.places)) {
		nic := n.kernel.places[address].nic
		links = append(links, kernel.RDMALink{Index: uint32(i), Name: nic.RDMA, NodeGUID: nic.GUID.String()})
	}
	return links, nil
}

// RDMAExclusive says no: the simulated RDMA devices are files, which no
// namespace has for itself.
func (n *namespace) RDMAExclusive() (bool, error) { return false, nil }

// EswitchModes is "legacy" for all ports that have VFs: nothing switches them.
func (n *namespace) EswitchModes() (map[string]string, error) {
	modes := map[string]string{}
	for _, port := range n.kernel.nics {
		if len(port.VFs) > 0 {
			modes[port.Address] = "legacy"
		}
	}
	return modes, nil
}

// MoveRDMA refuses, as the kernel does where RDMA devices are shared.
func (n *namespace) MoveRDMA(name string, _ kernel.Namespace) error {
	return fmt.Errorf("move RDMA device %s: %w", name, unix.EOPNOTSUPP)
}
