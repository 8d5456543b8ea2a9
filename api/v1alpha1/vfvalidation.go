package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of what a VF can be configured with.
const (
	// minMTU is the smallest packet that every IPv4 host must take (RFC 791),
	// minMTU6 the same for IPv6 (RFC 8200).
	minMTU, minMTU6, maxMTU = 68, 1280, 65535
	// maxVLAN: 4095 is reserved (IEEE 802.1Q).
	maxVLAN, maxQoS = 4094, 7
	// maxIfName is IFNAMSIZ of the kernel without its final zero.
	maxIfName = 15
)

// Default fills in what the user left out. It also brings lists and the IPAM
// object into the form in which they come back from being encoded and decoded.
func (c *VfConfig) Default() {
	if c.Mode == "" {
		c.Mode = VfModeNetdevice
	}
	if c.Proto == "" && c.VLAN != nil && *c.VLAN != 0 {
		c.Proto = "802.1q"
	}
	if len(c.Addresses) == 0 {
		c.Addresses = nil
	}
	if len(c.Routes) == 0 {
		c.Routes = nil
	}
	if len(c.IPAM) == 0 || string(bytes.TrimSpace(c.IPAM)) == "null" {
		c.IPAM = nil
	} else if compact, err := json.Marshal(c.IPAM); err == nil {
		c.IPAM = compact
	}
}

// Validate returns an error that names every field with a wrong value.
func (c *VfConfig) Validate() error {
	var errs field.ErrorList
	errs = append(errs, c.validateMode()...)
	errs = append(errs, c.validateLink()...)
	errs = append(errs, c.validateTraffic()...)
	errs = append(errs, c.validateAddresses(field.NewPath("addresses"))...)
	errs = append(errs, c.validateRoutes(field.NewPath("routes"))...)
	errs = append(errs, c.validateIPAM(field.NewPath("ipam"))...)
	errs = append(errs, c.validateNetAttachDef(field.NewPath("netAttachDef"))...)
	return errs.ToAggregate()
}

// validateMode checks the mode, and that nothing is set that needs an
// interface in the pod where the mode gives none.
func (c *VfConfig) validateMode() field.ErrorList {
	var errs field.ErrorList
	switch c.Mode {
	case VfModeNetdevice:
		return nil
	case VfModeRDMA, VfModeVFIO:
	default:
		return field.ErrorList{field.NotSupported(field.NewPath("mode"), c.Mode, []VfMode{VfModeNetdevice, VfModeRDMA, VfModeVFIO})}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"ifName", c.IfName != ""},
		{"mtu", c.MTU != nil},
		{"addresses", len(c.Addresses) > 0},
		{"routes", len(c.Routes) > 0},
		{"ipam", len(c.IPAM) > 0},
		{"netAttachDef", c.NetAttachDef != nil},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(field.NewPath(f.name),
				fmt.Sprintf("mode %s gives the pod no network interface: remove it, or use mode %s", c.Mode, VfModeNetdevice)))
		}
	}
	return errs
}

// validateLink checks what the interface itself is given.
func (c *VfConfig) validateLink() field.ErrorList {
	var errs field.ErrorList
	if c.IfName != "" {
		path := field.NewPath("ifName")
		switch why := badInterfaceName(c.IfName); {
		case why != "":
			errs = append(errs, field.Invalid(path, c.IfName, why))
		case c.IfName == "lo" || c.IfName == "eth0":
			errs = append(errs, field.Invalid(path, c.IfName, "every pod has an interface of this name already: want another one, such as net1"))
		}
	}
	if c.MAC != "" {
		if why := badMAC(c.MAC); why != "" {
			errs = append(errs, field.Invalid(field.NewPath("mac"), c.MAC, why))
		}
	}
	if c.MTU != nil {
		errs = append(errs, within(field.NewPath("mtu"), *c.MTU, minMTU, maxMTU)...)
		if *c.MTU < minMTU6 && c.hasIPv6() {
			errs = append(errs, field.Invalid(field.NewPath("mtu"), *c.MTU, fmt.Sprintf("an interface with an IPv6 address needs at least %d", minMTU6)))
		}
	}
	switch c.LinkState {
	case "", "auto", "enable", "disable":
	default:
		errs = append(errs, field.NotSupported(field.NewPath("linkState"), c.LinkState, []string{"auto", "enable", "disable"}))
	}
	return errs
}

// validateTraffic checks what the PF does with the VF's traffic.
func (c *VfConfig) validateTraffic() field.ErrorList {
	var errs field.ErrorList
	tagged := c.VLAN != nil && *c.VLAN != 0
	if c.VLAN != nil {
		errs = append(errs, within(field.NewPath("vlan"), *c.VLAN, 0, maxVLAN)...)
	}
	if c.QoS != nil {
		path := field.NewPath("qos")
		errs = append(errs, within(path, *c.QoS, 0, maxQoS)...)
		if !tagged {
			errs = append(errs, field.Forbidden(path, "it is the priority of a VLAN: set vlan to 1 or more as well"))
		}
	}
	switch path := field.NewPath("proto"); c.Proto {
	case "":
	case "802.1q", "802.1ad":
		if !tagged {
			errs = append(errs, field.Forbidden(path, "it is the kind of a VLAN: set vlan to 1 or more as well"))
		}
	default:
		errs = append(errs, field.NotSupported(path, c.Proto, []string{"802.1q", "802.1ad"}))
	}
	if c.MinTxRate != nil {
		errs = append(errs, within(field.NewPath("minTxRate"), *c.MinTxRate, 0, math.MaxUint32)...)
	}
	if c.MaxTxRate != nil {
		errs = append(errs, within(field.NewPath("maxTxRate"), *c.MaxTxRate, 0, math.MaxUint32)...)
	}
	if c.MinTxRate != nil && c.MaxTxRate != nil && *c.MaxTxRate > 0 && *c.MinTxRate > *c.MaxTxRate {
		errs = append(errs, field.Invalid(field.NewPath("minTxRate"), *c.MinTxRate, fmt.Sprintf("is more than maxTxRate, %d", *c.MaxTxRate)))
	}
	return errs
}

func (c *VfConfig) validateIPAM(path *field.Path) field.ErrorList {
	if len(c.IPAM) == 0 {
		return nil
	}
	var errs field.ErrorList
	if len(c.Addresses) > 0 {
		errs = append(errs, field.Forbidden(path, `it finds the addresses that "addresses" gives: keep one of the two`))
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(c.IPAM, &object); err != nil || object == nil {
		return append(errs, field.Invalid(path, shorten(string(c.IPAM)), `want an object, such as {"type": "host-local", "subnet": "192.168.10.0/24"}`))
	}
	raw, ok := object["type"]
	if !ok {
		return append(errs, field.Required(path.Child("type"), "the name of a CNI IPAM plugin, such as host-local"))
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil || name == "" || strings.ContainsAny(name, "/\x00") {
		errs = append(errs, field.Invalid(path.Child("type"), shorten(string(raw)), "want the name of a CNI IPAM plugin, such as host-local"))
	}
	return errs
}

func (c *VfConfig) validateNetAttachDef(path *field.Path) field.ErrorList {
	if c.NetAttachDef == nil {
		return nil
	}
	var errs field.ErrorList
	if c.NetAttachDef.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "the name of a NetworkAttachmentDefinition"))
	} else if why := validation.IsDNS1123Subdomain(c.NetAttachDef.Name); len(why) > 0 {
		errs = append(errs, field.Invalid(path.Child("name"), c.NetAttachDef.Name, strings.Join(why, "; ")))
	}
	if ns := c.NetAttachDef.Namespace; ns != "" {
		if why := validation.IsDNS1123Label(ns); len(why) > 0 {
			errs = append(errs, field.Invalid(path.Child("namespace"), ns, strings.Join(why, "; ")))
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"addresses", len(c.Addresses) > 0},
		{"routes", len(c.Routes) > 0},
		{"ipam", len(c.IPAM) > 0},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(field.NewPath(f.name), "the plugins of netAttachDef give the interface its addresses and routes: remove it, or netAttachDef"))
		}
	}
	return errs
}

// badInterfaceName returns why the kernel, or its sysctl tree, would not take
// a name for an interface, and "" if it would (dev_valid_name in
// net/core/dev.c, sysctl_dev_name_is_allowed in net/core/sysctl_net_core.c).
func badInterfaceName(name string) string {
	switch {
	case len(name) > maxIfName:
		return fmt.Sprintf("has %d bytes: want at most %d", len(name), maxIfName)
	case name == "." || name == ".." || name == "all" || name == "default":
		return "the kernel keeps this name for itself: want another one, such as net1"
	}
	for _, r := range name {
		// A % would be taken for a pattern, as in "net%d".
		if r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) {
			return fmt.Sprintf("has %q, which cannot be part of an interface name", r)
		}
	}
	return ""
}

func badMAC(s string) string {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return "want six bytes, such as 02:00:00:00:00:01"
	case mac[0]&1 != 0:
		return "is a group address, which no interface can have: want an even first byte, such as 02:00:00:00:00:01"
	case bytes.Equal(mac, make([]byte, 6)):
		return "is zero: want one such as 02:00:00:00:00:01, or leave it out"
	}
	return ""
}

func within(path *field.Path, value, low, high int) field.ErrorList {
	if value < low || value > high {
		return field.ErrorList{field.Invalid(path, value, fmt.Sprintf("want %d to %d", low, high))}
	}
	return nil
}

// shorten keeps a value that a user wrote from filling a whole event.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// hasIPv6 tells whether one of the addresses is of IPv6. Wrong ones do not
// count; they have an error of their own.
func (c *VfConfig) hasIPv6() bool {
	for _, s := range c.Addresses {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is6() {
			return true
		}
	}
	return false
}
