package machine

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
)

// takeAddress lets programs in the network namespace listen at the guest's
// address, so that the guest's ports are reached there as on any other machine.
// It stays with the namespace.
func takeAddress(network string) error {
	return inNetwork(network, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find the loopback link: %w", err)
		}
		// Connections that begin in the namespace must not seem to come from the
		// guest's own address, as they would if it were just added to the link.
		err = netlink.RouteReplace(&netlink.Route{
			Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST, LinkIndex: lo.Attrs().Index,
			Dst: &net.IPNet{IP: net.ParseIP(boot.GuestAddr), Mask: net.CIDRMask(32, 32)},
			Src: net.IPv4(127, 0, 0, 1),
		})
		if err != nil {
			return fmt.Errorf("take the guest's address %s: %w", boot.GuestAddr, err)
		}
		return nil
	})
}
