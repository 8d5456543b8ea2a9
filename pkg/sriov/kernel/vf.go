package kernel

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VLAN protocols, as [VLAN] writes them.
const (
	protocol8021Q  = "802.1Q"
	protocol8021AD = "802.1ad"
)

// SetVF changes settings of a VF through its PF.
func (n *namespace) SetVF(pf, vf int, settings VFSettings) error {
	link := byIndex(pf)
	set := func(name string, value any, do func() error) error {
		if err := do(); err != nil {
			return fmt.Errorf("set %s %v on VF %d: %w", name, value, vf, err)
		}
		return nil
	}
	for _, change := range []struct {
		wanted bool
		do     func() error
	}{
		{settings.HardwareAddress != nil, func() error {
			return set("hardware address", settings.HardwareAddress, func() error {
				return n.handle.LinkSetVfHardwareAddr(link, vf, settings.HardwareAddress)
			})
		}},
		{settings.VLAN != nil, func() error { return n.setVLAN(pf, vf, settings.VLAN) }},
		{settings.SpoofCheck != nil, func() error {
			return set("spoof check", onOff(settings.SpoofCheck), func() error {
				return n.handle.LinkSetVfSpoofchk(link, vf, *settings.SpoofCheck)
			})
		}},
		{settings.Trust != nil, func() error {
			return set("trust", onOff(settings.Trust), func() error {
				return n.handle.LinkSetVfTrust(link, vf, *settings.Trust)
			})
		}},
		{settings.LinkState != nil, func() error { return n.setLinkState(pf, vf, settings.LinkState) }},
		{settings.TxRate != nil, func() error {
			rate := settings.TxRate
			return set("rate", fmt.Sprintf("min %d max %d Mbit/s", rate.Min, rate.Max), func() error {
				return n.handle.LinkSetVfRate(link, vf, rate.Min, rate.Max)
			})
		}},
		{settings.NodeGUID != nil, func() error {
			return set("node GUID", settings.NodeGUID, func() error {
				return n.handle.LinkSetVfGUID(link, vf, settings.NodeGUID, nl.IFLA_VF_IB_NODE_GUID)
			})
		}},
		{settings.PortGUID != nil, func() error {
			return set("port GUID", settings.PortGUID, func() error {
				return n.handle.LinkSetVfGUID(link, vf, settings.PortGUID, nl.IFLA_VF_IB_PORT_GUID)
			})
		}},
	} {
		if !change.wanted {
			continue
		}
		if err := change.do(); err != nil {
			return err
		}
	}
	return nil
}

func onOff(on *bool) string {
	if *on {
		return "on"
	}
	return "off"
}

func (n *namespace) setVLAN(pf, vf int, vlan *VLAN) error {
	protocol := unix.ETH_P_8021Q
	switch vlan.Protocol {
	case "", protocol8021Q:
	case protocol8021AD:
		protocol = unix.ETH_P_8021AD
	default:
		return fmt.Errorf("set VLAN protocol %q on VF %d: want %s or %s: %w", vlan.Protocol, vf, protocol8021Q, protocol8021AD, unix.EINVAL)
	}
	if err := n.handle.LinkSetVfVlanQosProto(byIndex(pf), vf, vlan.ID, vlan.QoS, protocol); err != nil {
		return fmt.Errorf("set VLAN %d qos %d protocol %s on VF %d: %w", vlan.ID, vlan.QoS, orDefault(vlan.Protocol, protocol8021Q), vf, err)
	}
	return nil
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

func (n *namespace) setLinkState(pf, vf int, state *string) error {
	number := slices.Index(linkStates(), *state)
	if number < 0 {
		return fmt.Errorf("set link state %q on VF %d: want one of %v: %w", *state, vf, linkStates(), unix.EINVAL)
	}
	if err := n.handle.LinkSetVfState(byIndex(pf), vf, uint32(number)); err != nil {
		return fmt.Errorf("set link state %q on VF %d: %w", *state, vf, err)
	}
	return nil
}
