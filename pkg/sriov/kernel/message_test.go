package kernel

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"
)

// words are the bytes of 32-bit numbers.
func words(values ...uint32) []byte {
	var out []byte
	for _, value := range values {
		out = binary.NativeEndian.AppendUint32(out, value)
	}
	return out
}

// pfMessage is what Linux 6 sends for a PF with two VFs. The driver does not
// know spoof check and trust of the second.
func pfMessage(arphrd uint16) []byte {
	const unknown = 0xffffffff
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Type, info.Index, info.Flags = arphrd, 7, unix.IFF_UP|unix.IFF_LOWER_UP
	message := info.Serialize()
	add := func(kind int, data []byte) { message = append(message, nl.NewRtAttr(kind, data).Serialize()...) }
	add(unix.IFLA_IFNAME, nl.ZeroTerminated("ibp24s0"))
	add(unix.IFLA_MTU, words(4092))
	add(unix.IFLA_PHYS_PORT_NAME, nl.ZeroTerminated("p0"))
	add(unix.IFLA_PARENT_DEV_NAME, nl.ZeroTerminated("0000:18:00.0"))
	add(unix.IFLA_PARENT_DEV_BUS_NAME, nl.ZeroTerminated("pci"))

	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST|unix.NLA_F_NESTED, nil)
	for vf, known := range []bool{true, false} {
		n := uint32(vf)
		bits := uint32(unknown)
		if known {
			bits = 1
		}
		one := list.AddRtAttr(nl.IFLA_VF_INFO, nil)
		one.AddRtAttr(nl.IFLA_VF_MAC, append(append(words(n), 2, 0, 0, 0, 0, byte(vf)), make([]byte, 26)...))
		one.AddRtAttr(nl.IFLA_VF_VLAN, words(n, 100, 3))
		one.AddRtAttr(nl.IFLA_VF_TX_RATE, words(n, 500))
		one.AddRtAttr(nl.IFLA_VF_SPOOFCHK, words(n, bits))
		one.AddRtAttr(nl.IFLA_VF_TRUST, words(n, bits))
		one.AddRtAttr(nl.IFLA_VF_LINK_STATE, words(n, 2))
		one.AddRtAttr(nl.IFLA_VF_RATE, words(n, 50, 500))
		if known {
			vlans := one.AddRtAttr(nl.IFLA_VF_VLAN_LIST, nil)
			vlans.AddRtAttr(nl.IFLA_VF_VLAN_INFO, append(words(n, 100, 3), 0x88, 0xa8, 0, 0))
			guid := binary.NativeEndian.AppendUint64(words(n, 0), 0xa088c20300123456)
			one.AddRtAttr(nl.IFLA_VF_IB_NODE_GUID, guid)
			one.AddRtAttr(nl.IFLA_VF_IB_PORT_GUID, guid)
		}
		one.AddRtAttr(nl.IFLA_VF_STATS, nl.NewRtAttr(1, make([]byte, 8)).Serialize())
	}
	return append(message, list.Serialize()...)
}

func TestParseLink(t *testing.T) {
	got, err := parseLink(pfMessage(unix.ARPHRD_ETHER))
	if err != nil {
		t.Fatal(err)
	}
	guid := net.HardwareAddr{0xa0, 0x88, 0xc2, 3, 0, 0x12, 0x34, 0x56}
	rate := &TxRate{Min: 50, Max: 500}
	want := Link{
		Index: 7, Name: "ibp24s0", Device: "0000:18:00.0", Port: "p0", Type: "ether", MTU: 4092, Up: true, Carrier: true,
		VFs: map[int]VFSettings{
			0: {
				HardwareAddress: net.HardwareAddr{2, 0, 0, 0, 0, 0}, VLAN: &VLAN{ID: 100, QoS: 3, Protocol: "802.1ad"},
				SpoofCheck: ptr.To(true), Trust: ptr.To(true), LinkState: ptr.To("disable"), TxRate: rate,
				NodeGUID: guid, PortGUID: guid,
			},
			1: {
				HardwareAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1}, VLAN: &VLAN{ID: 100, QoS: 3, Protocol: "802.1Q"},
				LinkState: ptr.To("disable"), TxRate: rate,
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("interface (-want +got):\n%s", diff)
	}
	got, err = parseLink(pfMessage(unix.ARPHRD_INFINIBAND))
	if err != nil || got.Type != "infiniband" || got.VFs[0].HardwareAddress != nil {
		t.Errorf("an InfiniBand PF: got %+v, %v", got, err)
	}
}

func TestIsRepresentor(t *testing.T) {
	for port, want := range map[string]bool{"": false, "p0": false, "p1": false, "pf0vf3": true, "pf0": true, "c1pf0vf0": true, "p": true} {
		if got := (Link{Port: port}).IsRepresentor(); got != want {
			t.Errorf("port %q: got %v, want %v", port, got, want)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(pfMessage(unix.ARPHRD_ETHER))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		link, err := parseLink(message)
		if err != nil && link.Name != "" {
			t.Fatalf("got %+v and an error", link)
		}
	})
}
