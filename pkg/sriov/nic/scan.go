package nic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Reasons of a [device.Fault] of this package.
const (
	// ReasonUnreadable: a NIC is there, and something that every NIC tells
	// cannot be read.
	ReasonUnreadable = "NICUnreadable"
	// ReasonRDMAUnknown: the kernel does not answer questions about RDMA.
	ReasonRDMAUnknown = "RDMAUnknown"
)

// networkController is the PCI base class of NICs.
const networkController = 0x02

// Options say where to look.
type Options struct {
	// SysfsRoot is the host's sysfs, as this process sees it.
	SysfsRoot string
	// Host is the host's network namespace.
	Host kernel.Namespace
	// NodeAddresses are those by which the cluster knows the node. The NIC
	// that has one is the host's own.
	NodeAddresses []netip.Addr
}

// Scan looks at all NICs that can have VFs. What cannot be read is a fault and
// hides nothing else; an error means that there is no answer at all.
//
// A NIC without a driver is part of the answer too, as far as the PCI bus tells
// of it.
func Scan(ctx context.Context, opts Options) (Machine, []device.Fault, error) {
	s := scanner{Options: opts, sysfs: topology.At(opts.SysfsRoot)}
	addresses, err := s.sysfs.Addresses()
	if err != nil {
		return Machine{}, nil, err
	}
	if s.links, err = opts.Host.Links(); err != nil {
		return Machine{}, nil, fmt.Errorf("look at the host's NICs: %w", err)
	}
	s.index()
	s.ask()
	if s.used, err = s.hostUse(); err != nil {
		return Machine{}, nil, fmt.Errorf("find the NICs that the host itself uses: %w", err)
	}
	var pfs []PF
	for _, address := range addresses {
		if err := context.Cause(ctx); err != nil {
			return Machine{}, nil, fmt.Errorf("look at the host's NICs: %w", err)
		}
		pf, err := s.pf(address)
		switch {
		case err == nil && pf != nil:
			pfs = append(pfs, *pf)
		case err != nil && s.sysfs.Exists(address):
			s.fault("PF", address, err)
		}
	}
	return Machine{PFs: pfs, RDMAExclusive: s.exclusive}, s.faults, nil
}

// scanner is one look at the machine.
type scanner struct {
	Options
	sysfs topology.Sysfs
	links []kernel.Link
	// netdevs are the interfaces of PCI functions, by address.
	netdevs   map[string]*kernel.Link
	rdmaLinks []kernel.RDMALink
	exclusive bool
	modes     map[string]string
	// used says, by the index of an interface, what the host uses it for.
	used   map[int]string
	faults []device.Fault
}

// ask asks the kernel for what is not needed to find VFs.
func (s *scanner) ask() {
	var err error
	if s.rdmaLinks, err = s.Host.RDMALinks(); err == nil {
		s.exclusive, err = s.Host.RDMAExclusive()
	}
	if err != nil {
		s.faults = append(s.faults, device.Fault{Subject: "RDMA", Reason: ReasonRDMAUnknown, Err: err})
	}
	// Of the drivers that know a mode at all, none fails to tell it; without
	// an answer the mode is not published.
	s.modes, _ = s.Host.EswitchModes()
}

func (s *scanner) fault(what string, address topology.Address, err error) {
	s.faults = append(s.faults, device.Fault{Subject: fmt.Sprintf("%s %s", what, address), Reason: ReasonUnreadable, Err: err})
}

// pf reads a PF. It returns nothing for a function that is none.
func (s *scanner) pf(address topology.Address) (*PF, error) {
	total, err := s.integer(address, "sriov_totalvfs", 10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	node, err := s.sysfs.Node(address)
	if err != nil {
		return nil, err
	}
	if node.Class>>16 != networkController || total == 0 {
		return nil, nil
	}
	name := address.String()
	pf := &PF{Node: node, TotalVFs: total, Netdev: s.netdevs[name], EswitchMode: s.modes[name]}
	if pf.NumVFs, err = s.integer(address, "sriov_numvfs", 10); err != nil {
		return nil, err
	}
	pf.Model = s.model(address)
	// Kernels before 4.16 do not tell these, which are for selectors only.
	if id, err := s.integer(address, "sriov_vf_device", 16); err == nil {
		pf.VFDeviceID = uint32(id)
	}
	pf.VFOffset, _ = s.integer(address, "sriov_offset", 10)
	pf.VFStride, _ = s.integer(address, "sriov_stride", 10)
	pf.RDMA = s.rdma(address, pf.Netdev)
	pf.LinkType = linkType(pf.Netdev, pf.RDMA, node.Class)
	pf.SpeedMbps = s.speed(pf)
	if pf.Netdev != nil {
		pf.HostUse = s.used[pf.Netdev.Index]
	}
	pf.VFs, err = s.vfs(pf)
	return pf, err
}

// vfs reads the VFs of a PF.
func (s *scanner) vfs(pf *PF) ([]VF, error) {
	entries, err := os.ReadDir(s.path(pf.Address))
	if err != nil {
		return nil, fmt.Errorf("list the VFs of PF %s: %w", pf.Address, err)
	}
	var settings map[int]kernel.VFSettings
	if pf.Netdev != nil {
		settings = pf.Netdev.VFs
	}
	var vfs []VF
	for _, entry := range entries {
		number, isVF := strings.CutPrefix(entry.Name(), "virtfn")
		if !isVF {
			continue
		}
		index, err := strconv.Atoi(number)
		if err != nil {
			s.fault("PF", pf.Address, fmt.Errorf("read the number of its VF %s: %w", entry.Name(), err))
			continue
		}
		address, vf, err := s.vf(s.path(pf.Address, entry.Name()), index)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !s.sysfs.Exists(address):
			// It was removed in this moment.
		case err != nil:
			s.fault(fmt.Sprintf("VF %d of PF", index), pf.Address, err)
		default:
			vf.Settings = settings[index]
			vfs = append(vfs, vf)
		}
	}
	slices.SortFunc(vfs, func(a, b VF) int { return cmp.Compare(a.Index, b.Index) })
	return vfs, nil
}

func (s *scanner) vf(link string, index int) (topology.Address, VF, error) {
	target, err := os.Readlink(link)
	if err != nil {
		return topology.Address{}, VF{}, fmt.Errorf("find VF %d: %w", index, err)
	}
	address, err := topology.ParseAddress(filepath.Base(target))
	if err != nil {
		return address, VF{}, fmt.Errorf("read the link %s: %w", link, err)
	}
	vf := VF{Index: index, Netdev: s.netdevs[address.String()]}
	if vf.Node, err = s.sysfs.Node(address); err != nil {
		return address, VF{}, err
	}
	if vf.Netdev != nil {
		vf.HostUse = s.used[vf.Netdev.Index]
	}
	vf.RDMA = s.rdma(address, vf.Netdev)
	if group, err := os.Readlink(s.path(address, "iommu_group")); err == nil {
		vf.IOMMUGroup = filepath.Base(group)
	}
	return address, vf, nil
}

// index finds the interface of each function, the first one where there are
// several: IPoIB can have child interfaces, which are made later.
func (s *scanner) index() {
	s.netdevs = make(map[string]*kernel.Link)
	for i, link := range s.links {
		if link.Device == "" || link.IsRepresentor() {
			continue
		}
		if found := s.netdevs[link.Device]; found == nil || link.Index < found.Index {
			s.netdevs[link.Device] = &s.links[i]
		}
	}
}

func linkType(netdev *kernel.Link, rdma *RDMA, class uint32) string {
	const ethernetClass, infiniBandClass = 0x0200, 0x0207
	switch {
	case netdev != nil:
		return netdev.Type
	case rdma != nil && rdma.LinkLayer == layerInfiniBand:
		return InfiniBand
	case rdma != nil && rdma.LinkLayer != "":
		return Ether
	case class>>8 == infiniBandClass:
		return InfiniBand
	case class>>8 == ethernetClass:
		return Ether
	default:
		return ""
	}
}

// speed is that of the interface, or else of the RDMA port. Both are unknown
// where the link is down.
func (s *scanner) speed(pf *PF) int {
	if pf.Netdev != nil {
		if mbps, err := s.integer(pf.Address, filepath.Join("net", pf.Netdev.Name, "speed"), 10); err == nil && mbps > 0 {
			return mbps
		}
	}
	if pf.RDMA != nil {
		return pf.RDMA.RateMbps
	}
	return 0
}

func (s *scanner) model(address topology.Address) uint32 {
	vendor, vendorErr := s.integer(address, "subsystem_vendor", 0)
	id, idErr := s.integer(address, "subsystem_device", 0)
	if vendorErr != nil || idErr != nil {
		return 0
	}
	return uint32(vendor)<<16 | uint32(id)&0xffff
}

func (s *scanner) integer(address topology.Address, name string, base int) (int, error) {
	file := s.path(address, name)
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read %s of PCI device %s: %w", name, address, err)
	}
	// Some files hold -1 for what is not known.
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), base, 32)
	if err != nil {
		return 0, fmt.Errorf("read %s of PCI device %s from %s: %w", name, address, file, err)
	}
	return int(n), nil
}

func (s *scanner) path(address topology.Address, below ...string) string {
	return filepath.Join(append([]string{s.SysfsRoot, "bus", "pci", "devices", address.String()}, below...)...)
}
