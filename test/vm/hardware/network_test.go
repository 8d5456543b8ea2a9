//go:build guest

package hardware

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestVFsReachEachOther(t *testing.T) {
	vfs := makeVFs(t, pf0, 2)
	far := makeVFs(t, pf2, 1)
	for name, part := range map[string]struct{ vf, address string }{
		"a": {vfs[0], "192.168.9.1/24"}, "b": {vfs[1], "192.168.9.2/24"}, "c": {far[0], "192.168.9.3/24"},
	} {
		namespace(t, name)
		move(t, part.vf, name, part.address)
	}
	await(t, "an answer of a VF of the same card", func() error { return ping("a", "192.168.9.2") })
	await(t, "an answer of a VF of another card", func() error { return ping("a", "192.168.9.3") })

	pf := netdev(t, pf0)
	try(t, "ip", "link", "set", pf, "vf", "1", "vlan", "100")
	await(t, "the VLAN to part the VFs", func() error {
		if ping("a", "192.168.9.2") == nil {
			return errors.New("the VF on a VLAN still answers the one on none")
		}
		return nil
	})
	try(t, "ip", "link", "set", pf, "vf", "0", "vlan", "100")
	await(t, "an answer on the same VLAN", func() error { return ping("a", "192.168.9.2") })
}

func TestAVFComesBackWhenItsNamespaceEnds(t *testing.T) {
	vf := makeVFs(t, pf0, 1)[0]
	try(t, "ip", "netns", "add", "gone")
	move(t, vf, "gone", "192.168.9.1/24")
	try(t, "ip", "netns", "del", "gone")
	if name := netdev(t, vf); name != "net1" {
		t.Errorf("the VF came back as %s; the kernel keeps the name it had in the namespace, net1", name)
	}
}

// What igb refuses, and with what reason: users are shown the kernel's.
func TestWhatTheKernelRefuses(t *testing.T) {
	makeVFs(t, pf0, 1)
	pf, err := netlink.LinkByName(netdev(t, pf0))
	if err != nil {
		t.Fatal(err)
	}
	const vf = 0
	mac := []byte{1, 0, 0, 0, 0, 1} // A multicast address.
	guid := []byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}
	// A rate is refused, as invalid, until the card itself has a link.
	await(t, "a highest rate to be taken", func() error { return netlink.LinkSetVfRate(pf, vf, 0, 100) })
	for _, test := range []struct {
		name string
		do   func() error
		want error
	}{
		{"VLAN protocol 802.1ad", func() error { return netlink.LinkSetVfVlanQosProto(pf, vf, 100, 0, 0x88a8) }, unix.EPROTONOSUPPORT},
		{"link state", func() error { return netlink.LinkSetVfState(pf, vf, netlink.VF_LINK_STATE_ENABLE) }, unix.EOPNOTSUPP},
		{"lowest rate", func() error { return netlink.LinkSetVfRate(pf, vf, 10, 100) }, unix.EINVAL},
		{"a rate above the link's", func() error { return netlink.LinkSetVfRate(pf, vf, 0, 2000) }, unix.EINVAL},
		{"a multicast address", func() error { return netlink.LinkSetVfHardwareAddr(pf, vf, mac) }, unix.EINVAL},
		{"a VF that is not there", func() error { return netlink.LinkSetVfTrust(pf, 9, true) }, unix.EINVAL},
		{"GUID", func() error { return netlink.LinkSetVfNodeGUID(pf, vf, guid) }, unix.EOPNOTSUPP},
		{"trust", func() error { return netlink.LinkSetVfTrust(pf, vf, true) }, nil},
		{"no spoof check", func() error { return netlink.LinkSetVfSpoofchk(pf, vf, false) }, nil},
		{"VLAN and priority", func() error { return netlink.LinkSetVfVlanQos(pf, vf, 100, 3) }, nil},
	} {
		if err := test.do(); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if err := write(sys(pf0, "sriov_numvfs"), "8"); !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ERANGE) {
		t.Errorf("more VFs than there can be: got %v", err)
	}
}
