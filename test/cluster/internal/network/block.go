package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// blockBits is the size of a cluster's private range.
const blockBits = 23

// ranges are searched in this order for a free block. The Service network is
// not among them.
func ranges() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.214.0.0/15"),
		netip.MustParsePrefix("172.30.0.0/16"),
		netip.MustParsePrefix("192.168.128.0/17"),
	}
}

// FreeBlock returns the first block that overlaps no used prefix.
func FreeBlock(used []netip.Prefix) (netip.Prefix, error) {
	for _, r := range ranges() {
		for block := netip.PrefixFrom(r.Addr(), blockBits); r.Contains(block.Addr()); block = next(block) {
			if !overlapsAny(block, used) {
				return block, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("no private network is free: the host's addresses and routes cover all of %v; take down other clusters or remove a route", ranges())
}

func next(block netip.Prefix) netip.Prefix {
	a := block.Addr().As4()
	value := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	value += 1 << (32 - block.Bits())
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), block.Bits())
}

func overlapsAny(block netip.Prefix, used []netip.Prefix) bool {
	for _, prefix := range used {
		if block.Overlaps(prefix) {
			return true
		}
	}
	return false
}

// UsedOnHost returns the prefixes of the host's addresses and routes, in all
// routing tables, except default routes.
func UsedOnHost() ([]netip.Prefix, error) {
	var used []netip.Prefix
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, addr := range addrs {
		if ip, ok := netip.AddrFromSlice(addr.IP.To4()); ok {
			ones, _ := addr.Mask.Size()
			used = append(used, netip.PrefixFrom(ip, ones).Masked())
		}
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		if ones, _ := route.Dst.Mask.Size(); ok && ones > 0 {
			used = append(used, netip.PrefixFrom(ip, ones).Masked())
		}
	}
	return used, nil
}

// LockHost keeps two clusters from choosing the same block at once: it locks
// the host's network namespace itself, so that no lock file is needed.
func LockHost() (unlock func() error, err error) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the host's network namespace: %w", err), f.Close())
	}
	return f.Close, nil
}
