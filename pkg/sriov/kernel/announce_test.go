package kernel

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A neighbour that knows another interface by the address learns of the new one
// at once.
func TestAnnounce(t *testing.T) {
	k, _ := newKernel(t)
	pod, _ := openNamespace(t, k)
	addVeth(t, k.Host(), "neighbour", "vf0")
	must(t, k.Host().Move(find(t, k.Host(), "vf0").Index, pod))
	neighbour, vf := find(t, k.Host(), "neighbour"), find(t, pod, "vf0")
	must(t, k.Host().SetUp(neighbour.Index))
	must(t, k.Host().AddAddress(neighbour.Index, netip.MustParsePrefix("192.168.10.1/24")))
	must(t, k.Host().AddAddress(neighbour.Index, netip.MustParsePrefix("fd00::1/64")))
	must(t, pod.SetUp(vf.Index))

	addresses := []netip.Prefix{netip.MustParsePrefix("192.168.10.5/24"), netip.MustParsePrefix("fd00::5/64")}
	former := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, address := range addresses {
		must(t, pod.AddAddress(vf.Index, address))
		must(t, k.host.handle.NeighSet(&netlink.Neigh{
			LinkIndex: neighbour.Index, IP: address.Addr().AsSlice(), HardwareAddr: former, State: netlink.NUD_STALE,
		}))
	}
	must(t, pod.AnnounceAddresses(vf.Index, addresses))
	for _, address := range addresses {
		deadline := time.Now().Add(10 * time.Second)
		for known := lookUp(t, k.host, neighbour.Index, address.Addr()); !bytes.Equal(known, vf.HardwareAddress); known = lookUp(t, k.host, neighbour.Index, address.Addr()) {
			if time.Now().After(deadline) {
				t.Fatalf("the neighbour takes %s for the owner of %s, want %s", known, address, vf.HardwareAddress)
			}
		}
	}

	must(t, pod.AnnounceAddresses(find(t, pod, "lo").Index, addresses)) // says nothing
	if err := pod.AnnounceAddresses(4711, addresses); err == nil {
		t.Error("an interface that is not there has announced something")
	}
}

// lookUp returns whom a namespace takes for the owner of an address.
func lookUp(t *testing.T, n *namespace, index int, address netip.Addr) net.HardwareAddr {
	t.Helper()
	family := netlink.FAMILY_V4
	if address.Is6() {
		family = netlink.FAMILY_V6
	}
	known, err := n.handle.NeighList(index, family)
	must(t, err)
	for _, neigh := range known {
		if neigh.IP.Equal(address.AsSlice()) {
			return neigh.HardwareAddr
		}
	}
	return nil
}
