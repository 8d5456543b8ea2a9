package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

// Link names inside the namespaces.
const (
	uplink   = "uplink" // control plane → host
	nodeLink = "node"   // control plane → node
	nodeEth  = "eth0"   // node → control plane
)

// JoinHost makes the link between host and control plane, whose network
// namespace is given.
func JoinHost(c *config.Config, s config.State, controlPlane *os.File) error {
	a := c.Addresses()
	if err := RemoveHost(s); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = s.HostLink()
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(int(controlPlane.Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the link %s between host and control plane: %w", s.HostLink(), err)
	}
	host, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	defer host.Close()
	if err := configure(host, s.HostLink(), a.Host); err != nil {
		return err
	}
	// The host reaches node and pods too, for `curl` in tests.
	if err := route(host, c.Block, a.API); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(netns.NsHandle(int(controlPlane.Fd())))
	if err != nil {
		return fmt.Errorf("open a netlink socket in the control plane: %w", err)
	}
	defer inside.Close()
	if err := configure(inside, uplink, a.API); err != nil {
		return err
	}
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the control plane's loopback link: %w", err)
	}
	service := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(config.KubernetesService(), 32))}
	if err := inside.AddrReplace(lo, service); err != nil {
		return fmt.Errorf("give the control plane the address of the Service kubernetes: %w", err)
	}
	return route(inside, netip.PrefixFrom(netip.IPv4Unspecified(), 0), a.Host)
}

// RemoveHost removes the cluster's link from the host, if it is there.
func RemoveHost(s config.State) error {
	link, err := netlink.LinkByName(s.HostLink())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the link %s: %w", s.HostLink(), err)
	}
	// The kernel removes it too when the other end's namespace ends.
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, os.ErrNotExist) && !isGone(err) {
		return fmt.Errorf("remove the link %s: %w", s.HostLink(), err)
	}
	return nil
}

// JoinNode makes the link between control plane and node.
func JoinNode(c *config.Config, controlPlane, node *os.File) error {
	a := c.Addresses()
	outer, err := netlink.NewHandleAt(netns.NsHandle(int(controlPlane.Fd())))
	if err != nil {
		return fmt.Errorf("open a netlink socket in the control plane: %w", err)
	}
	defer outer.Close()
	// After a reboot of the node the old pair may not be gone yet.
	if old, err := outer.LinkByName(nodeLink); err == nil {
		if err := outer.LinkDel(old); err != nil && !isGone(err) {
			return fmt.Errorf("remove the old link to the node: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nodeLink
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: nodeEth, PeerNamespace: netlink.NsFd(int(node.Fd()))}
	if err := outer.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the link between control plane and node: %w", err)
	}
	inner, err := netlink.NewHandleAt(netns.NsHandle(int(node.Fd())))
	if err != nil {
		return fmt.Errorf("open a netlink socket in the node: %w", err)
	}
	defer inner.Close()
	if err := configure(inner, nodeEth, a.Node); err != nil {
		return err
	}
	if err := Connect(c, controlPlane); err != nil {
		return err
	}
	return route(inner, netip.PrefixFrom(netip.IPv4Unspecified(), 0), a.ControlPlane)
}

// Connect sets the link to the node up, at first or after Disconnect.
func Connect(c *config.Config, controlPlane *os.File) error {
	a := c.Addresses()
	handle, err := netlink.NewHandleAt(netns.NsHandle(int(controlPlane.Fd())))
	if err != nil {
		return fmt.Errorf("open a netlink socket in the control plane: %w", err)
	}
	defer handle.Close()
	if err := configure(handle, nodeLink, a.ControlPlane); err != nil {
		return err
	}
	return route(handle, a.Pods, a.Node)
}

// Disconnect cuts the node off from its control plane, and the host from the
// node.
func Disconnect(controlPlane *os.File) error {
	handle, err := netlink.NewHandleAt(netns.NsHandle(int(controlPlane.Fd())))
	if err != nil {
		return fmt.Errorf("open a netlink socket in the control plane: %w", err)
	}
	defer handle.Close()
	link, err := handle.LinkByName(nodeLink)
	if err != nil {
		return fmt.Errorf("find the link to the node: %w", err)
	}
	if err := handle.LinkSetDown(link); err != nil {
		return fmt.Errorf("set the link to the node down: %w", err)
	}
	return nil
}

// configure gives a link its address and sets it up; repeatable.
func configure(handle *netlink.Handle, name string, addr netip.Addr) error {
	link, err := handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the link %s: %w", name, err)
	}
	if err := handle.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, config.LinkBits))}); err != nil {
		return fmt.Errorf("give the link %s the address %s: %w", name, addr, err)
	}
	if err := handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the link %s up: %w", name, err)
	}
	return nil
}

func route(handle *netlink.Handle, to netip.Prefix, via netip.Addr) error {
	if err := handle.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s by %s: %w", to, via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
