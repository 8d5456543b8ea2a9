package kerneltest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// Namespace is a network namespace in memory.
type Namespace struct {
	kernel *Kernel
	path   string
	id     string
	inode  uint64
	ended  bool

	links     []*kernel.Link
	addresses map[int][]netip.Prefix
	routes    []kernel.Route
	rdma      []kernel.RDMALink
	announced []netip.Prefix
}

// Path is where the namespace is bound.
func (n *Namespace) Path() string { return n.path }

// ID implements [kernel.Namespace].
func (n *Namespace) ID() string { return n.id }

// AddLink makes an interface, and returns its index.
func (n *Namespace) AddLink(link kernel.Link) int {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	return n.add(link)
}

func (n *Namespace) add(link kernel.Link) int {
	n.kernel.nextIndex++
	link.Index = n.kernel.nextIndex
	if link.MTU == 0 {
		link.MTU = 1500
	}
	n.links = append(n.links, &link)
	return link.Index
}

// RemoveLink removes the interface of a function, and returns what it was.
func (n *Namespace) RemoveLink(device string) (kernel.Link, bool) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	for i, link := range n.links {
		if link.Device == device {
			n.links = slices.Delete(n.links, i, i+1)
			return *link, true
		}
	}
	return kernel.Link{}, false
}

// AddRDMA makes an RDMA device.
func (n *Namespace) AddRDMA(name string) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	n.kernel.nextIndex++
	n.rdma = append(n.rdma, kernel.RDMALink{Index: uint32(n.kernel.nextIndex), Name: name})
}

func (n *Namespace) byName(name string) *kernel.Link {
	for _, link := range n.links {
		if link.Name == name || slices.Contains(link.AltNames, name) {
			return link
		}
	}
	return nil
}

func (n *Namespace) hasAny(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return n.byName(name) != nil })
}

// AddAltName gives the interface of a function a further name, as anybody in
// the namespace can who has CAP_NET_ADMIN.
func (n *Namespace) AddAltName(device, name string) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	for _, link := range n.links {
		if link.Device == device {
			link.AltNames = append(link.AltNames, name)
		}
	}
}

// change calls do with an interface of this namespace.
func (n *Namespace) change(operation string, index int, detail any, do func(*kernel.Link) error) error {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	if err := n.kernel.refuse(operation, detail); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	for _, link := range n.links {
		if link.Index == index {
			if err := do(link); err != nil {
				return fmt.Errorf("%s: %w", operation, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%s: %w", operation, syscall.ENODEV)
}

// Links implements [kernel.Namespace].
func (n *Namespace) Links() ([]kernel.Link, error) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	if n == n.kernel.host {
		n.kernel.arrive()
	}
	var links []kernel.Link
	for _, link := range n.links {
		l := *link
		l.HardwareAddress = slices.Clone(link.HardwareAddress)
		l.VFs = maps.Clone(link.VFs)
		links = append(links, l)
	}
	return links, nil
}

// Rename implements [kernel.Namespace].
func (n *Namespace) Rename(index int, name string) error {
	return n.change("Rename", index, name, func(l *kernel.Link) error {
		switch {
		case l.Name == name:
			return nil
		case l.Up:
			return syscall.EBUSY
		case len(name) > 15:
			return syscall.EINVAL
		case n.byName(name) != nil:
			return syscall.EEXIST
		}
		l.Name = name
		return nil
	})
}

// SetUp implements [kernel.Namespace].
func (n *Namespace) SetUp(index int) error {
	return n.change("SetUp", index, nil, func(l *kernel.Link) error {
		l.Up, l.Carrier = true, !n.kernel.NoCarrier
		return nil
	})
}

// SetDown implements [kernel.Namespace]. An interface that is down has no
// routes.
func (n *Namespace) SetDown(index int) error {
	return n.change("SetDown", index, nil, func(l *kernel.Link) error {
		l.Up, l.Carrier = false, false
		n.routes = slices.DeleteFunc(n.routes, func(r kernel.Route) bool { return r.Link == index })
		return nil
	})
}

// SetMTU implements [kernel.Namespace].
func (n *Namespace) SetMTU(index, mtu int) error {
	return n.change("SetMTU", index, mtu, func(l *kernel.Link) error {
		limit := n.kernel.MaxMTU
		if limit == 0 {
			limit = 9000
		}
		if mtu > limit {
			return syscall.EINVAL
		}
		l.MTU = mtu
		return nil
	})
}

// SetHardwareAddress implements [kernel.Namespace].
func (n *Namespace) SetHardwareAddress(index int, address net.HardwareAddr) error {
	return n.change("SetHardwareAddress", index, address, func(l *kernel.Link) error {
		if n.kernel.PFRulesAddress && l.Device != "" {
			if given := n.kernel.given(l.Device); !kernel.IsZero(given) {
				return syscall.EADDRNOTAVAIL
			}
		}
		l.HardwareAddress = slices.Clone(address)
		return nil
	})
}

// Move implements [kernel.Namespace]. The interface gets another index.
func (n *Namespace) Move(index int, to kernel.Namespace) error {
	target, ok := to.(handle)
	if !ok {
		return fmt.Errorf("Move: %T is no namespace of this kernel", to)
	}
	return n.change("Move", index, nil, func(l *kernel.Link) error {
		switch {
		case target.ended:
			return syscall.EINVAL
		case target.hasAny(append([]string{l.Name}, l.AltNames...)):
			return syscall.EEXIST
		}
		n.links = slices.DeleteFunc(n.links, func(other *kernel.Link) bool { return other == l })
		delete(n.addresses, index)
		l.Up, l.Carrier = false, false
		target.add(*l)
		return nil
	})
}

// Clean implements [kernel.Namespace].
func (n *Namespace) Clean(index int, names []string) error {
	return n.change("Clean", index, names, func(l *kernel.Link) error {
		l.AltNames = slices.DeleteFunc(slices.Clone(l.AltNames), func(name string) bool { return !slices.Contains(names, name) })
		return nil
	})
}

// Addresses implements [kernel.Namespace].
func (n *Namespace) Addresses(index int) ([]netip.Prefix, error) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	return slices.Clone(n.addresses[index]), nil
}

// AddAddress implements [kernel.Namespace].
func (n *Namespace) AddAddress(index int, address netip.Prefix) error {
	return n.change("AddAddress", index, address, func(*kernel.Link) error {
		if n.addresses == nil {
			n.addresses = map[int][]netip.Prefix{}
		}
		if !slices.Contains(n.addresses[index], address) {
			n.addresses[index] = append(n.addresses[index], address)
		}
		return nil
	})
}

// AddRoute implements [kernel.Namespace].
func (n *Namespace) AddRoute(index int, route kernel.Route) error {
	return n.change("AddRoute", index, route, func(l *kernel.Link) error {
		if !l.Up {
			return syscall.ENETDOWN
		}
		if gateway := route.Gateway; gateway.IsValid() {
			reached := slices.ContainsFunc(n.addresses[index], func(p netip.Prefix) bool { return p.Contains(gateway) })
			if !reached {
				return syscall.ENETUNREACH
			}
		}
		route.Link = index
		n.routes = append(n.routes, route)
		return nil
	})
}

// AnnounceAddresses implements [kernel.Namespace].
func (n *Namespace) AnnounceAddresses(_ int, addresses []netip.Prefix) error {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	n.announced = append(n.announced, addresses...)
	return n.kernel.AnnounceErr
}

// Announced returns what the namespace's neighbours were told.
func (n *Namespace) Announced() []netip.Prefix {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	return slices.Clone(n.announced)
}

// Routes implements [kernel.Namespace].
func (n *Namespace) Routes() ([]kernel.Route, error) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	return slices.Clone(n.routes), nil
}

// EswitchModes implements [kernel.Namespace]. No driver tells.
func (n *Namespace) EswitchModes() (map[string]string, error) { return nil, nil }

// RDMALinks implements [kernel.Namespace].
func (n *Namespace) RDMALinks() ([]kernel.RDMALink, error) {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	return slices.Clone(n.rdma), nil
}

// RDMAExclusive implements [kernel.Namespace].
func (n *Namespace) RDMAExclusive() (bool, error) { return n.kernel.Exclusive, nil }

// MoveRDMA implements [kernel.Namespace].
func (n *Namespace) MoveRDMA(name string, to kernel.Namespace) error {
	target, ok := to.(handle)
	if !ok {
		return fmt.Errorf("MoveRDMA: %T is no namespace of this kernel", to)
	}
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	if err := n.kernel.refuse("MoveRDMA", name); err != nil {
		return fmt.Errorf("MoveRDMA: %w", err)
	}
	at := n.indexOfRDMA(name)
	switch {
	case !n.kernel.Exclusive:
		return fmt.Errorf("MoveRDMA: %w", syscall.EOPNOTSUPP)
	case at < 0:
		return fmt.Errorf("MoveRDMA: %w", syscall.ENODEV)
	}
	target.rdma = append(target.rdma, n.rdma[at])
	n.rdma = slices.Delete(n.rdma, at, at+1)
	return nil
}

func (n *Namespace) indexOfRDMA(name string) int {
	return slices.IndexFunc(n.rdma, func(l kernel.RDMALink) bool { return l.Name == name })
}

// RenameRDMA implements [kernel.Namespace].
func (n *Namespace) RenameRDMA(name, to string) error {
	n.kernel.mu.Lock()
	defer n.kernel.mu.Unlock()
	if err := n.kernel.refuse("RenameRDMA", name); err != nil {
		return fmt.Errorf("RenameRDMA: %w", err)
	}
	for _, other := range n.kernel.spaces {
		if other.indexOfRDMA(to) >= 0 {
			return fmt.Errorf("RenameRDMA: %w", syscall.EEXIST)
		}
	}
	at := n.indexOfRDMA(name)
	if at < 0 {
		return fmt.Errorf("RenameRDMA: %w", syscall.ENODEV)
	}
	n.rdma[at].Name = to
	return nil
}
