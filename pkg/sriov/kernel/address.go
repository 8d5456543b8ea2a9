package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses lists an interface's addresses.
func (n *namespace) Addresses(index int) ([]netip.Prefix, error) {
	found, err := repeated(func() ([]netlink.Addr, error) {
		return n.handle.AddrList(byIndex(index), netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, fmt.Errorf("list the addresses of interface %d: %w", index, err)
	}
	var addresses []netip.Prefix
	for _, address := range found {
		if prefix, ok := toPrefix(address.IPNet); ok {
			addresses = append(addresses, prefix)
		}
	}
	return addresses, nil
}

// AddAddress adds an address.
func (n *namespace) AddAddress(index int, address netip.Prefix) error {
	wanted := &netlink.Addr{IPNet: toIPNet(address)}
	if address.Addr().Is6() {
		wanted.Flags = unix.IFA_F_NODAD
	}
	err := n.handle.AddrAdd(byIndex(index), wanted)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to interface %d: %w", address, index, err)
	}
	return nil
}

// AddRoute adds or replaces a route over an interface.
func (n *namespace) AddRoute(index int, route Route) error {
	wanted := &netlink.Route{
		LinkIndex: index,
		Dst:       toIPNet(route.Destination.Masked()),
		Priority:  route.Metric,
		Family:    netlink.FAMILY_V4,
		Scope:     netlink.SCOPE_LINK,
	}
	if route.Destination.Addr().Is6() {
		wanted.Family, wanted.Scope = netlink.FAMILY_V6, netlink.SCOPE_UNIVERSE
	}
	if route.Gateway.IsValid() {
		wanted.Gw, wanted.Scope = net.IP(route.Gateway.AsSlice()), netlink.SCOPE_UNIVERSE
	}
	if route.Source.IsValid() {
		wanted.Src = net.IP(route.Source.AsSlice())
	}
	if err := n.handle.RouteReplace(wanted); err != nil {
		return fmt.Errorf("add the route to %s over interface %d: %w", describe(route), index, err)
	}
	return nil
}

func describe(route Route) string {
	if !route.Gateway.IsValid() {
		return route.Destination.String()
	}
	return fmt.Sprintf("%s with gateway %s", route.Destination, route.Gateway)
}

// Routes lists the routes of the main table.
func (n *namespace) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		found, err := repeated(func() ([]netlink.Route, error) { return n.handle.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, route := range found {
			routes = append(routes, toRoutes(route, family)...)
		}
	}
	return routes, nil
}

// toRoutes returns one route for each next hop.
func toRoutes(from netlink.Route, family int) []Route {
	route := Route{Link: from.LinkIndex, Metric: from.Priority, Gateway: toAddr(from.Gw), Source: toAddr(from.Src)}
	var ok bool
	if route.Destination, ok = toPrefix(from.Dst); !ok {
		route.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == netlink.FAMILY_V6 {
			route.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if len(from.MultiPath) == 0 {
		return []Route{route}
	}
	var routes []Route
	for _, hop := range from.MultiPath {
		each := route
		each.Link, each.Gateway = hop.LinkIndex, toAddr(hop.Gw)
		routes = append(routes, each)
	}
	return routes
}

func toAddr(ip net.IP) netip.Addr {
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap()
}

func toPrefix(network *net.IPNet) (netip.Prefix, bool) {
	if network == nil {
		return netip.Prefix{}, false
	}
	ones, _ := network.Mask.Size()
	prefix := netip.PrefixFrom(toAddr(network.IP), ones)
	return prefix, prefix.IsValid()
}

func toIPNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   net.IP(prefix.Addr().AsSlice()),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}
