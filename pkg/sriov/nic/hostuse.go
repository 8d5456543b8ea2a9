package nic

import (
	"fmt"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// hostUse says what the host uses its interfaces for, by their index: an
// interface that has the default route or the node's address, and all that such
// an interface stands on.
func (s *scanner) hostUse() (map[int]string, error) {
	used := make(map[int]string)
	routes, err := s.Host.Routes()
	if err != nil {
		return nil, err
	}
	for _, route := range routes {
		if route.Destination.Bits() == 0 {
			s.mark(used, route.Link, "has the default route")
		}
	}
	if len(s.NodeAddresses) == 0 {
		return used, nil
	}
	for _, link := range s.aboveNICs() {
		addresses, err := s.Host.Addresses(link.Index)
		if err != nil {
			return nil, err
		}
		for _, address := range addresses {
			if slices.Contains(s.NodeAddresses, address.Addr()) {
				s.mark(used, link.Index, fmt.Sprintf("has the node's address %s", address.Addr()))
			}
		}
	}
	return used, nil
}

// mark notes a use for an interface and for all below it: the ports of a bond
// or bridge, and what a VLAN stands on.
func (s *scanner) mark(used map[int]string, index int, what string) {
	at := slices.IndexFunc(s.links, func(l kernel.Link) bool { return l.Index == index })
	if at < 0 || used[index] != "" {
		return
	}
	top := s.links[at]
	used[index] = "it " + what
	below := fmt.Sprintf("%s above it %s", top.Name, what)
	queue := []kernel.Link{top}
	for len(queue) > 0 {
		upper := queue[0]
		queue = queue[1:]
		for _, link := range s.links {
			if standsOn(upper, link) && used[link.Index] == "" {
				used[link.Index] = below
				queue = append(queue, link)
			}
		}
	}
}

// standsOn tells whether one interface sends through another.
func standsOn(upper, lower kernel.Link) bool {
	return upper.Index != lower.Index && (lower.Master == upper.Index || upper.Lower == lower.Index)
}

// aboveNICs are the interfaces of PCI functions, and those that stand on them.
func (s *scanner) aboveNICs() []kernel.Link {
	var found []kernel.Link
	known := make(map[int]bool)
	for _, link := range s.links {
		if link.Device != "" {
			found, known[link.Index] = append(found, link), true
		}
	}
	for i := 0; i < len(found); i++ {
		for _, link := range s.links {
			if !known[link.Index] && standsOn(link, found[i]) {
				found, known[link.Index] = append(found, link), true
			}
		}
	}
	return found
}
