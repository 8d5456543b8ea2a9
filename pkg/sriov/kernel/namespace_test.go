package kernel

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/netnstest"
)

func TestLinks(t *testing.T) {
	k, _ := newKernel(t)
	host := k.Host()
	addVeth(t, host, "left", "right")
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}
	must(t, k.host.handle.LinkAdd(bridge))
	left := find(t, host, "left")
	must(t, k.host.handle.LinkSetMaster(byIndex(left.Index), bridge))

	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	must(t, host.SetHardwareAddress(left.Index, mac))
	must(t, host.SetMTU(left.Index, 1400))
	must(t, host.Rename(left.Index, "renamed"))
	must(t, host.SetUp(left.Index))
	must(t, host.SetUp(find(t, host, "right").Index))

	want := Link{
		Index: left.Index, Name: "renamed", Type: "ether", HardwareAddress: mac, MTU: 1400, Up: true, Carrier: true,
		Master: bridge.Index, Lower: find(t, host, "right").Index,
	}
	if diff := cmp.Diff(want, find(t, host, "renamed")); diff != "" {
		t.Errorf("interface (-want +got):\n%s", diff)
	}
	must(t, host.SetDown(left.Index))
	if got := find(t, host, "renamed"); got.Up || got.Carrier {
		t.Errorf("an interface that was set down is still up: %+v", got)
	}
	if lo := find(t, host, "lo"); lo.Type != "loopback" {
		t.Errorf("got type %q for lo", lo.Type)
	}
}

func TestMove(t *testing.T) {
	k, _ := newKernel(t)
	pod, _ := openNamespace(t, k)
	addVeth(t, k.Host(), "vf0", "peer")
	addVeth(t, pod, "net1", "other")

	must(t, k.Host().Move(find(t, k.Host(), "vf0").Index, pod))
	moved := find(t, pod, "vf0")
	if moved.Lower != 0 {
		t.Errorf("the interface stands on interface %d, which is in another namespace", moved.Lower)
	}

	err := pod.Rename(moved.Index, "net1")
	if !errors.Is(err, syscall.EEXIST) {
		t.Errorf("rename to a name that is taken: got %v, want EEXIST", err)
	}
	must(t, pod.Rename(moved.Index, "net2"))

	addVeth(t, k.Host(), "net2", "third")
	if err := pod.Move(moved.Index, k.Host()); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("move to where the name is taken: got %v, want EEXIST", err)
	}
	must(t, pod.Rename(moved.Index, "vf0"))
	must(t, pod.Move(moved.Index, k.Host()))
	if back := find(t, k.Host(), "vf0"); back.Up {
		t.Error("the interface came back up, want down")
	}
}

func TestAddressesAndRoutes(t *testing.T) {
	k, _ := newKernel(t)
	host := k.Host()
	addVeth(t, host, "left", "right")
	index := find(t, host, "left").Index
	must(t, host.SetUp(find(t, host, "right").Index))
	must(t, host.SetUp(index))

	v4, v6 := netip.MustParsePrefix("192.168.10.5/24"), netip.MustParsePrefix("fd00::5/64")
	for range 2 { // the second time they are there already
		must(t, host.AddAddress(index, v4))
		must(t, host.AddAddress(index, v6))
	}
	got, err := host.Addresses(index)
	must(t, err)
	byText := cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.String() < b.String() })
	linkLocal := cmpopts.IgnoreSliceElements(func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	if diff := cmp.Diff([]netip.Prefix{v4, v6}, got, byText, linkLocal, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}

	gateway := netip.MustParseAddr("192.168.10.1")
	want := []Route{
		{Link: index, Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway},
		{Link: index, Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: gateway, Metric: 50, Source: v4.Addr()},
		{Link: index, Destination: netip.MustParsePrefix("172.16.0.0/12")},
		{Link: index, Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00::1"), Metric: 7},
	}
	for range 2 {
		for _, route := range want {
			must(t, host.AddRoute(index, route))
		}
	}
	routes, err := host.Routes()
	must(t, err)
	for _, route := range want {
		found := 0
		for _, r := range routes {
			if r == route {
				found++
			}
		}
		if found != 1 {
			t.Errorf("route %+v was found %d times in %+v", route, found, routes)
		}
	}
	err = host.AddRoute(index, Route{Destination: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("203.0.113.1")})
	if err == nil || !strings.Contains(err.Error(), "10.1.0.0/16 with gateway 203.0.113.1") || !strings.Contains(err.Error(), "invalid gateway") {
		t.Errorf("a gateway that cannot be reached: got %v, want the kernel's own words", err)
	}
}

// An interface that is no PF refuses what only a PF can do.
func TestSetVFIsRefused(t *testing.T) {
	k, _ := newKernel(t)
	addVeth(t, k.Host(), "left", "right")
	pf := find(t, k.Host(), "left").Index
	guid := net.HardwareAddr{0xa0, 0x88, 0xc2, 3, 0, 0x12, 0x34, 0x56}
	for name, test := range map[string]struct {
		settings VFSettings
		want     string
		errno    syscall.Errno
	}{
		"hardware address": {VFSettings{HardwareAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, "hardware address 02:00:00:00:00:01 on VF 3", syscall.EOPNOTSUPP},
		"vlan":             {VFSettings{VLAN: &VLAN{ID: 100, QoS: 2}}, "VLAN 100 qos 2 protocol 802.1Q on VF 3", syscall.EOPNOTSUPP},
		"vlan protocol":    {VFSettings{VLAN: &VLAN{ID: 100, Protocol: "802.1x"}}, `VLAN protocol "802.1x" on VF 3`, syscall.EINVAL},
		"spoof check":      {VFSettings{SpoofCheck: ptr.To(false)}, "spoof check off on VF 3", syscall.EOPNOTSUPP},
		"trust":            {VFSettings{Trust: ptr.To(true)}, "trust on on VF 3", syscall.EOPNOTSUPP},
		"link state":       {VFSettings{LinkState: ptr.To("enable")}, `link state "enable" on VF 3`, syscall.EOPNOTSUPP},
		"no link state":    {VFSettings{LinkState: ptr.To("up")}, `link state "up" on VF 3: want one of [auto enable disable]`, syscall.EINVAL},
		"rate":             {VFSettings{TxRate: &TxRate{Min: 10, Max: 100}}, "rate min 10 max 100 Mbit/s on VF 3", syscall.EOPNOTSUPP},
		"node GUID":        {VFSettings{NodeGUID: guid}, "node GUID a0:88:c2:03:00:12:34:56 on VF 3", 0},
		"port GUID":        {VFSettings{PortGUID: guid}, "port GUID a0:88:c2:03:00:12:34:56 on VF 3", 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := k.Host().SetVF(pf, 3, test.settings)
			var errno syscall.Errno
			if !errors.As(err, &errno) || test.errno != 0 && errno != test.errno {
				t.Errorf("got %v, want an error with %v", err, test.errno)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
		})
	}
	must(t, k.Host().SetVF(pf, 3, VFSettings{}))
}

func TestOpen(t *testing.T) {
	k, netns := newKernel(t)
	again, err := k.OpenPath(netnstest.Path(netns))
	must(t, err)
	if again.ID() != k.Host().ID() {
		t.Errorf("one namespace has the IDs %s and %s", again.ID(), k.Host().ID())
	}
	must(t, again.Close())
	other, _ := openNamespace(t, k)
	if other.ID() == k.Host().ID() {
		t.Errorf("two namespaces have the ID %s", other.ID())
	}
	must(t, k.Host().Close())
	if _, err := k.Host().Links(); err != nil {
		t.Errorf("the host's namespace cannot be used after Close: %v", err)
	}

	leftover := filepath.Join(t.TempDir(), "cni-1234")
	must(t, os.WriteFile(leftover, nil, 0o600))
	for _, path := range []string{leftover, filepath.Join(t.TempDir(), "gone"), "/proc/self/ns/mnt"} {
		if n, err := k.OpenPath(path); !errors.Is(err, fs.ErrNotExist) || n != nil {
			t.Errorf("open %s: got %v, %v, want fs.ErrNotExist", path, n, err)
		}
	}
	if _, err := New(leftover); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a host without namespace: got %v, want fs.ErrNotExist", err)
	}
}

// Kernels, such as that of a build machine, may lack RDMA and devlink. The
// answers are then empty, and no error.
func TestRDMAAndSwitches(t *testing.T) {
	k, _ := newKernel(t)
	if _, err := k.Host().RDMALinks(); err != nil {
		t.Error(err)
	}
	if _, err := k.Host().RDMAExclusive(); err != nil {
		t.Error(err)
	}
	if _, err := k.Host().EswitchModes(); err != nil {
		t.Error(err)
	}
	err := k.Host().MoveRDMA("mlx5_9", k.Host())
	if err == nil || !strings.Contains(err.Error(), "move RDMA device mlx5_9") {
		t.Errorf("move an RDMA device that is not there: got %v", err)
	}
	if got := toGUID("56:34:12:00:03:c2:88:a0"); got != "a0:88:c2:03:00:12:34:56" {
		t.Errorf("got GUID %q", got)
	}
	if got := toGUID("00:00:00:00:00:00:00:00"); got != "" {
		t.Errorf("got GUID %q for none", got)
	}
}

// Where netlink does not tell the PCI function, the drivers are asked.
func TestAskDriver(t *testing.T) {
	k, _ := newKernel(t)
	k.host.askDriver = true
	addVeth(t, k.Host(), "left", "right")
	if got := find(t, k.Host(), "left"); got.Device != "" {
		t.Errorf("a virtual interface belongs to PCI function %q", got.Device)
	}
}
