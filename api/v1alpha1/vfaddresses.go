package v1alpha1

import (
	"fmt"
	"math"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *VfConfig) validateAddresses(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[netip.Addr]bool{}
	for i, s := range c.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			errs = append(errs, field.Invalid(path.Index(i), s, "want an address with the length of its network's prefix, such as 192.168.10.5/24 or fd00::5/64"))
			continue
		}
		if why := badAddress(p); why != "" {
			errs = append(errs, field.Invalid(path.Index(i), s, why))
			continue
		}
		if seen[p.Addr()] {
			errs = append(errs, field.Duplicate(path.Index(i), s))
		}
		seen[p.Addr()] = true
	}
	return errs
}

// badAddress returns why an interface cannot sensibly have the address, and ""
// if it can.
func badAddress(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case a.Is4In6():
		return fmt.Sprintf("is an IPv4 address in IPv6 notation: want %s", a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback():
		return "no interface can have this address"
	case p.Bits() == 0:
		return "its prefix length is 0, which makes every address a neighbour: want the length of its network's prefix, such as /24"
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		return "is the address of the network itself: want one of a host in it"
	case a.Is4() && p.Bits() < 31 && !p.Contains(a.Next()):
		return "is the broadcast address of its network: want one of a host in it"
	}
	return ""
}

func (c *VfConfig) validateRoutes(path *field.Path) field.ErrorList {
	if len(c.Routes) == 0 {
		return nil
	}
	var errs field.ErrorList
	if len(c.Addresses) == 0 && len(c.IPAM) == 0 {
		errs = append(errs, field.Forbidden(path, "an interface without addresses cannot have routes: set addresses or ipam as well"))
	}
	type key struct {
		destination netip.Prefix
		metric      int
	}
	seen := map[key]bool{}
	for i, r := range c.Routes {
		at := path.Index(i)
		destination, err := netip.ParsePrefix(r.Destination)
		switch {
		case r.Destination == "":
			errs = append(errs, field.Required(at.Child("destination"), "a network such as 10.0.0.0/8"))
		case err != nil || destination.Addr().Is4In6():
			errs = append(errs, field.Invalid(at.Child("destination"), r.Destination, "want a network such as 10.0.0.0/8 or fd00::/8"))
		case destination != destination.Masked():
			errs = append(errs, field.Invalid(at.Child("destination"), r.Destination, fmt.Sprintf("is an address in a network: want %s", destination.Masked())))
		case seen[key{destination, r.Metric}]:
			errs = append(errs, field.Duplicate(at.Child("destination"), r.Destination))
		default:
			seen[key{destination, r.Metric}] = true
			errs = append(errs, c.validateGateway(at.Child("gateway"), i, destination)...)
		}
		errs = append(errs, within(at.Child("metric"), r.Metric, 0, math.MaxUint32)...)
	}
	return errs
}

// validateGateway checks the gateway of a route. The kernel takes only one
// that it can reach without a gateway, by what is configured at that moment.
func (c *VfConfig) validateGateway(path *field.Path, route int, destination netip.Prefix) field.ErrorList {
	s := c.Routes[route].Gateway
	if s == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(s)
	switch {
	case err != nil || gateway.Zone() != "" || gateway.Is4In6():
		return field.ErrorList{field.Invalid(path, s, "want an address such as 192.168.10.1 or fd00::1")}
	case gateway.IsUnspecified(), gateway.IsMulticast(), gateway.IsLoopback():
		return field.ErrorList{field.Invalid(path, s, "no gateway can have this address")}
	case gateway.Is4() != destination.Addr().Is4():
		return field.ErrorList{field.Invalid(path, s, fmt.Sprintf("is not of the same IP family as the destination, %s", destination))}
	}
	// What an IPAM plugin will answer is not known yet.
	if len(c.IPAM) > 0 || len(c.Addresses) == 0 || gateway.IsLinkLocalUnicast() {
		return nil
	}
	for _, a := range c.Addresses {
		if p, err := netip.ParsePrefix(a); err == nil && p.Contains(gateway) {
			return nil
		}
	}
	for _, r := range c.Routes[:route] {
		if p, err := netip.ParsePrefix(r.Destination); err == nil && r.Gateway == "" && p.Contains(gateway) {
			return nil
		}
	}
	return field.ErrorList{field.Invalid(path, s, "is in the network of none of the addresses: want a neighbour of the interface, or a route to the gateway without a gateway before this one")}
}
