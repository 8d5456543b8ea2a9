package selection

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Selection is the selectors of one configuration.
type Selection struct {
	selectors []selector
}

// selector is a [v1alpha1.VFSelector] whose texts were read.
type selector struct {
	vendors, devices []uint32
	drivers          []string
	pfNames          []Named[string]
	roots            []Named[topology.Address]
	addresses        []topology.Address
	linkTypes        []string
	rdma             *bool
	wanted           Wanted
}

// Wanted is what a configuration asks of a PF.
type Wanted struct {
	// NumVFs is how many VFs the PF must have, nil for as many as it has.
	NumVFs *int
	// ExternallyManaged says that somebody else makes the VFs.
	ExternallyManaged bool
	// MTU is in bytes, nil for the one that the PF has.
	MTU *int
}

// New reads a configuration. A configuration that passed its own validation is
// no error here.
func New(config v1alpha1.SRIOVConfig) (*Selection, error) {
	s := &Selection{}
	var errs []error
	for i, from := range config.Selectors {
		read, err := newSelector(from)
		if err != nil {
			errs = append(errs, fmt.Errorf("sriov.selectors[%d]: %w", i, err))
		}
		s.selectors = append(s.selectors, read)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func newSelector(from v1alpha1.VFSelector) (selector, error) {
	s := selector{
		drivers: from.Drivers, linkTypes: from.LinkTypes, rdma: from.RDMA,
		wanted: Wanted{NumVFs: from.NumVFs, ExternallyManaged: from.ExternallyManaged, MTU: from.MTU},
	}
	var errs [5]error
	s.vendors, errs[0] = each("vendors", from.Vendors, parseID)
	s.devices, errs[1] = each("devices", from.Devices, parseID)
	s.pfNames, errs[2] = each("pfNames", from.PFNames, func(text string) (Named[string], error) {
		return ParseNamed(text, func(name string) (string, error) { return name, nil })
	})
	s.roots, errs[3] = each("rootDevices", from.RootDevices, func(text string) (Named[topology.Address], error) {
		return ParseNamed(text, topology.ParseAddress)
	})
	s.addresses, errs[4] = each("pciAddresses", from.PCIAddresses, topology.ParseAddress)
	return s, errors.Join(errs[:]...)
}

func each[T any](field string, texts []string, parse func(string) (T, error)) ([]T, error) {
	var (
		values []T
		errs   []error
	)
	for i, text := range texts {
		value, err := parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", field, i, err))
		}
		values = append(values, value)
	}
	return values, errors.Join(errs...)
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return 0, fmt.Errorf("PCI id %q: want four hexadecimal digits, such as 15b3", text)
	}
	return uint32(id), nil
}

// Selects tells whether a VF is to be published.
func (s *Selection) Selects(pf nic.PF, vf nic.VF) bool {
	if len(s.selectors) == 0 {
		return pf.HostUse == "" && vf.HostUse == ""
	}
	return slices.ContainsFunc(s.selectors, func(one selector) bool { return one.selects(pf, vf) })
}

// selects tells whether the selector chooses a VF. One that the host itself
// uses is chosen by its own address alone.
func (s selector) selects(pf nic.PF, vf nic.VF) bool {
	return s.allows(pf) && s.matches(pf, vf) && (vf.HostUse == "" || slices.Contains(s.addresses, vf.Address))
}

// Expects returns the link type that the selectors expect a VF to have, whatever
// it has: that of a selector which names the PF or the VF, and no other type. It
// is empty where they leave it open.
func (s *Selection) Expects(pf nic.PF, vf nic.VF) string {
	for _, one := range s.selectors {
		named := len(one.pfNames)+len(one.roots)+len(one.addresses) > 0
		if len(one.linkTypes) != 1 || !named {
			continue
		}
		pf.LinkType = one.linkTypes[0]
		if one.selects(pf, vf) {
			return one.linkTypes[0]
		}
	}
	return ""
}

// Accepts tells whether a selector that chooses a VF names its link type.
func (s *Selection) Accepts(pf nic.PF, vf nic.VF) bool {
	return slices.ContainsFunc(s.selectors, func(one selector) bool { return len(one.linkTypes) > 0 && one.selects(pf, vf) })
}

// Considers tells whether VFs of a PF can be published at all. Of a PF whose
// driver is missing, little is known: what nobody can tell may be as a selector
// wants it.
func (s *Selection) Considers(pf nic.PF) bool {
	if len(s.selectors) == 0 {
		return pf.HostUse == ""
	}
	return slices.ContainsFunc(s.selectors, func(one selector) bool { return one.considers(pf) })
}

// Wants returns what the selectors ask of a PF: for each thing the first
// selector decides that matches the PF and speaks of it.
func (s *Selection) Wants(pf nic.PF) Wanted {
	var wanted Wanted
	for _, one := range s.selectors {
		// A PF whose name nobody knows is not the one that is named.
		if pf.Netdev == nil && len(one.pfNames) > 0 || !one.considers(pf) {
			continue
		}
		if wanted.NumVFs == nil && one.wanted.NumVFs != nil {
			wanted.NumVFs, wanted.ExternallyManaged = one.wanted.NumVFs, one.wanted.ExternallyManaged
		}
		if wanted.MTU == nil {
			wanted.MTU = one.wanted.MTU
		}
	}
	return wanted
}

// matches tells whether all conditions hold for a VF.
func (s selector) matches(pf nic.PF, vf nic.VF) bool {
	return among(s.vendors, vf.Vendor) &&
		among(s.devices, vf.DeviceID) &&
		among(s.drivers, vf.Driver) &&
		among(s.addresses, vf.Address) &&
		among(s.linkTypes, pf.LinkType) &&
		(s.rdma == nil || *s.rdma == (vf.RDMA != nil)) &&
		names(s.pfNames, pf.Name(), vf.Index) &&
		names(s.roots, pf.Address, vf.Index)
}

// considers tells whether the conditions can hold for VFs of a PF. Where it has
// none, those that it would have count.
func (s selector) considers(pf nic.PF) bool {
	if !s.allows(pf) {
		return false
	}
	return among(s.vendors, pf.Vendor) &&
		(pf.VFDeviceID == 0 || among(s.devices, pf.VFDeviceID)) &&
		s.driverFits(pf) && s.addressFits(pf) &&
		(pf.LinkType == "" || among(s.linkTypes, pf.LinkType)) &&
		(s.rdma == nil || pf.Driver == "" || *s.rdma == (pf.RDMA != nil)) &&
		(pf.Netdev == nil || names(s.pfNames, pf.Name(), anyVF)) &&
		names(s.roots, pf.Address, anyVF)
}

// allows tells whether VFs of a PF may be touched: of one that the host itself
// uses only if it, or one of its VFs, is named.
func (s selector) allows(pf nic.PF) bool {
	if pf.HostUse == "" {
		return true
	}
	return len(s.pfNames) > 0 && names(s.pfNames, pf.Name(), anyVF) ||
		len(s.roots) > 0 && names(s.roots, pf.Address, anyVF) ||
		len(s.addresses) > 0 && s.addressFits(pf)
}

// driverFits compares with the drivers of the PF's VFs, or with the one that
// the kernel would bind. A VF may also be bound by hand or by a claim, so that
// vfio-pci says nothing.
func (s selector) driverFits(pf nic.PF) bool {
	if len(s.drivers) == 0 || pf.Driver == "" {
		return true
	}
	if slices.ContainsFunc(pf.VFs, func(vf nic.VF) bool { return slices.Contains(s.drivers, vf.Driver) }) {
		return true
	}
	return len(pf.VFs) == 0 && slices.Contains(s.drivers, vfDriver(pf.Driver))
}

// vfDriver is the kernel's driver for the VFs of a PF. Where it has another
// name than the PF's, that is Linux's doing (drivers/net/ethernet).
func vfDriver(pfDriver string) string {
	switch pfDriver {
	case "igb":
		return "igbvf"
	case "ixgbe":
		return "ixgbevf"
	case "i40e", "ice":
		return "iavf"
	default:
		return pfDriver
	}
}

func (s selector) addressFits(pf nic.PF) bool {
	if len(s.addresses) == 0 {
		return true
	}
	for _, vf := range pf.VFs {
		if slices.Contains(s.addresses, vf.Address) {
			return true
		}
	}
	for index := range pf.TotalVFs {
		if address, ok := pf.VFAddress(index); ok && slices.Contains(s.addresses, address) {
			return true
		}
	}
	return false
}

// among tells whether a condition holds. One that is left out does.
func among[T comparable](values []T, value T) bool {
	return len(values) == 0 || slices.Contains(values, value)
}

// anyVF stands for a VF with any number.
const anyVF = -1

func names[T comparable](named []Named[T], name T, index int) bool {
	return len(named) == 0 || slices.ContainsFunc(named, func(n Named[T]) bool {
		return n.Name == name && (index == anyVF || n.Has(index))
	})
}

// Named is a PF, and which of its VFs are meant.
type Named[T any] struct {
	Name T
	// VFs are ranges of numbers, first and last. Without any, all VFs are
	// meant.
	VFs [][2]int
}

// Has tells whether the VF with a number is meant.
func (n Named[T]) Has(index int) bool {
	return len(n.VFs) == 0 || slices.ContainsFunc(n.VFs, func(r [2]int) bool { return r[0] <= index && index <= r[1] })
}

// ParseNamed reads a PF, with "#" and a list of VF numbers and ranges behind it
// if only these VFs are meant: "ibp24s0", "ibp24s0#0-3", "0000:18:00.0#0,2-7".
func ParseNamed[T any](text string, parse func(string) (T, error)) (Named[T], error) {
	name, list, some := strings.Cut(text, "#")
	var named Named[T]
	var err error
	if name == "" {
		return named, fmt.Errorf("%q names no PF: want a PF, such as ibp24s0 or ibp24s0#0-3", text)
	}
	if named.Name, err = parse(name); err != nil || !some {
		return named, err
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, firstErr := strconv.ParseUint(from, 10, 16)
		last, lastErr := strconv.ParseUint(to, 10, 16)
		if firstErr != nil || lastErr != nil || first > last {
			return Named[T]{}, fmt.Errorf("%q has %q after the #: want numbers of VFs and ranges of them, such as 0-3,5", text, part)
		}
		named.VFs = append(named.VFs, [2]int{int(first), int(last)})
	}
	return named, nil
}
