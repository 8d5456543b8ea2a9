package nickernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// patience is how long a test waits for one thing.
const patience = 20 * time.Second

// newNetns makes a network namespace and returns the path of its descriptor. It
// ends with the test, or when the returned function is called.
func newNetns(t *testing.T) (string, func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	made := make(chan netns.NsHandle, 1)
	failed := make(chan error, 1)
	go func() {
		// The thread ends with its namespace, and is not used again.
		runtime.LockOSThread()
		handle, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		made <- handle
	}()
	select {
	case err := <-failed:
		t.Fatalf("making a network namespace: %v", err)
	case handle := <-made:
		end := func() {
			if handle.IsOpen() {
				_ = handle.Close()
			}
		}
		t.Cleanup(end)
		return fmt.Sprintf("/proc/self/fd/%d", int(handle)), end
	}
	return "", nil
}

// host is a machine with simulated NICs.
type host struct {
	*Kernel
	t    *testing.T
	opts Options
}

func newHost(t *testing.T) *host {
	t.Helper()
	path, _ := newNetns(t)
	actual, err := kernel.New(path)
	if err != nil {
		t.Fatal(err)
	}
	machine := simulated.New(simulated.DGXH200, "node")
	machine.Ethernet = true
	h := &host{t: t, opts: Options{
		Real: actual, HostNetns: path, NICs: machine.NICs(), Dir: filepath.Join(t.TempDir(), "nics"), BootID: "boot-1",
	}}
	h.start()
	return h
}

// start makes another kernel of the same machine, as a plugin does that starts.
func (h *host) start() {
	h.t.Helper()
	k, err := New(h.t.Context(), h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Kernel = k
}

// keep runs the keeper until the test ends.
func (h *host) keep() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Keep(ctx)
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// link returns the interface of a function, which must be there.
func (h *host) link(ns kernel.Namespace, device string) kernel.Link {
	h.t.Helper()
	link, ok := find(h.t, ns, device)
	if !ok {
		h.t.Fatalf("no interface of %s", device)
	}
	return link
}

func find(t *testing.T, ns kernel.Namespace, device string) (kernel.Link, bool) {
	t.Helper()
	links, err := ns.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Device == device {
			return link, true
		}
	}
	return kernel.Link{}, false
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

const (
	pf0  = "0000:18:00.0"
	vf00 = "0000:18:00.1"
)

func TestEveryFunctionHasAnInterface(t *testing.T) {
	h := newHost(t)
	links, err := h.Host().Links()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]kernel.Link{}
	for _, link := range links {
		if link.Device != "" {
			found[link.Device] = link
		}
	}
	want := 0
	for _, port := range h.opts.NICs {
		for _, nic := range append([]simulated.NIC{port}, port.VFs...) {
			want++
			link := found[nic.Address]
			kind := "ether"
			if nic.InfiniBand {
				kind = "infiniband"
			}
			if link.Name != nic.Netdev || link.Type != kind || link.HardwareAddress.String() != nic.HardwareAddress.String() {
				t.Errorf("interface of %s: got %+v, want name %s, type %s, address %s", nic.Address, link, nic.Netdev, kind, nic.HardwareAddress)
			}
		}
		if len(found[port.Address].VFs) != len(port.VFs) {
			t.Errorf("%s shows %d VFs, want %d", port.Netdev, len(found[port.Address].VFs), len(port.VFs))
		}
	}
	if len(found) != want {
		t.Errorf("%d interfaces, want %d", len(found), want)
	}
	if pf := found[pf0]; !pf.Up || !pf.Carrier {
		t.Errorf("the port has no link: %+v", pf)
	}
	if vf := found[vf00]; vf.Up {
		t.Errorf("a VF that nobody uses is up: %+v", vf)
	}
}

func TestAnotherPluginFindsTheInterfacesAndChangesNothing(t *testing.T) {
	h := newHost(t)
	if err := h.Host().SetVF(h.link(h.Host(), pf0).Index, 0, kernel.VFSettings{VLAN: &kernel.VLAN{ID: 7, QoS: 3}, Trust: ptr.To(true)}); err != nil {
		t.Fatal(err)
	}
	before, err := h.Host().Links()
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	after, err := h.Host().Links()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("interfaces (-before +after):\n%s", diff)
	}
	if got := h.link(h.Host(), pf0).VFs[0]; got.VLAN.ID != 7 || !*got.Trust {
		t.Errorf("settings are forgotten: %+v", got)
	}
	h.opts.BootID = "boot-2"
	h.start()
	if got := h.link(h.Host(), pf0).VFs[0]; got.VLAN.ID != 0 || *got.Trust {
		t.Errorf("settings have outlived a boot: %+v", got)
	}
}

func TestWhatAPluginThatWasKilledHasNotFinishedIsFinished(t *testing.T) {
	h := newHost(t)
	link, err := h.host.handle.LinkByName("ibp24s0v0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.host.handle.LinkSetAlias(link, ""); err != nil {
		t.Fatal(err)
	}
	end, err := h.host.handle.LinkByName("ibp24s0v1p")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.host.handle.LinkSetNoMaster(end); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.link(h.Host(), vf00)
	if end, err = h.host.handle.LinkByName("ibp24s0v1p"); err != nil || end.Attrs().MasterIndex == 0 {
		t.Errorf("the other end is on no switch: %+v, %v", end, err)
	}
}

func TestForeignInterfacesAreLeftAlone(t *testing.T) {
	h := newHost(t)
	end, err := h.host.handle.LinkByName("ibp24s0v0p")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.host.handle.LinkDel(end); err != nil {
		t.Fatal(err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "ibp24s0v0"
	if err := h.host.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), h.opts)
	if err == nil || !strings.Contains(err.Error(), "ibp24s0v0") {
		t.Errorf("error %v, want one that names the interface", err)
	}
}

func TestAVFMovesToAPodAndBackAndKeepsItsAddress(t *testing.T) {
	h := newHost(t)
	path, _ := newNetns(t)
	pod, err := h.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	vf := h.link(h.Host(), vf00)
	if err := h.Host().Move(vf.Index, pod); err != nil {
		t.Fatal(err)
	}
	if _, there := find(t, h.Host(), vf00); there {
		t.Error("the host has the VF still")
	}
	h.start() // makes nothing anew, for the VF is not lost
	if _, there := find(t, h.Host(), vf00); there {
		t.Error("the VF was made a second time")
	}
	moved := h.link(pod, vf00)
	if err := pod.Rename(moved.Index, "net1"); err != nil {
		t.Fatal(err)
	}
	if err := pod.Move(moved.Index, h.Host()); err != nil {
		t.Fatal(err)
	}
	if back := h.link(h.Host(), vf00); back.Name != "net1" {
		t.Errorf("the VF is called %s, want net1 as a real one would be", back.Name)
	}
}

func TestAVFThatEndsWithItsPodIsMadeAnewWithItsSettings(t *testing.T) {
	h := newHost(t)
	h.keep()
	path, end := newNetns(t)
	pod, err := h.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	if err := h.Host().SetVF(h.link(h.Host(), pf0).Index, 0, kernel.VFSettings{HardwareAddress: mac, VLAN: &kernel.VLAN{ID: 9}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Host().Move(h.link(h.Host(), vf00).Index, pod); err != nil {
		t.Fatal(err)
	}
	if err := pod.Close(); err != nil {
		t.Fatal(err)
	}
	end()
	eventually(t, "the VF is back", func() bool {
		link, there := find(t, h.Host(), vf00)
		return there && link.Name == "ibp24s0v0" && link.HardwareAddress.String() == mac.String()
	})
	if got := h.link(h.Host(), pf0).VFs[0]; got.VLAN.ID != 9 {
		t.Errorf("the VF has lost its VLAN: %+v", got)
	}
}

func TestTheLinkOfAVFFollowsItsPortUnlessItIsToldOtherwise(t *testing.T) {
	h := newHost(t)
	h.keep()
	port, vf, other := h.link(h.Host(), pf0), h.link(h.Host(), vf00), h.link(h.Host(), "0000:18:00.2")
	for _, link := range []kernel.Link{vf, other} {
		if err := h.Host().SetUp(link.Index); err != nil {
			t.Fatal(err)
		}
	}
	carrier := func(device string, want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("link of %s is %v", device, want), func() bool {
			link, _ := find(t, h.Host(), device)
			return link.Carrier == want
		})
	}
	carrier(vf00, true)
	if err := h.Host().SetVF(port.Index, 1, kernel.VFSettings{LinkState: ptr.To("enable")}); err != nil {
		t.Fatal(err)
	}
	if err := h.Host().SetDown(port.Index); err != nil {
		t.Fatal(err)
	}
	carrier(pf0, false)
	carrier(vf00, false)
	carrier("0000:18:00.2", true)
	if err := h.Host().SetUp(port.Index); err != nil {
		t.Fatal(err)
	}
	carrier(vf00, true)
	if err := h.Host().SetVF(port.Index, 0, kernel.VFSettings{LinkState: ptr.To("disable")}); err != nil {
		t.Fatal(err)
	}
	carrier(vf00, false)
}

func TestWhatAConnectX7RefusesIsRefused(t *testing.T) {
	h := newHost(t)
	pf := h.link(h.Host(), pf0).Index
	tests := map[string]struct {
		vf     int
		change kernel.VFSettings
		want   error
	}{
		"VF that is not there": {8, kernel.VFSettings{Trust: ptr.To(true)}, unix.EINVAL},
		"802.1ad":              {0, kernel.VFSettings{VLAN: &kernel.VLAN{ID: 5, Protocol: "802.1ad"}}, unix.EPROTONOSUPPORT},
		"VLAN":                 {0, kernel.VFSettings{VLAN: &kernel.VLAN{ID: 4096}}, unix.EINVAL},
		"multicast address":    {0, kernel.VFSettings{HardwareAddress: net.HardwareAddr{1, 0, 0, 0, 0, 1}}, unix.EINVAL},
		"rates":                {0, kernel.VFSettings{TxRate: &kernel.TxRate{Min: 10, Max: 5}}, unix.EINVAL},
		"GUID":                 {0, kernel.VFSettings{NodeGUID: make(net.HardwareAddr, 8)}, unix.EOPNOTSUPP},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := h.Host().SetVF(pf, test.vf, test.change); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
	if diff := cmp.Diff(settings{LinkState: linkAuto}.shown(), h.link(h.Host(), pf0).VFs[0]); diff != "" {
		t.Errorf("settings of a VF of which all was refused (-want +got):\n%s", diff)
	}
}

// Who is on the same switch hears each other.
func TestVFsOfAllPortsShareASwitchPerVLAN(t *testing.T) {
	h := newHost(t)
	for pf, vlan := range map[string]int{pf0: 100, "0000:40:00.0": 100, "0000:4f:00.0": 200} {
		if err := h.Host().SetVF(h.link(h.Host(), pf).Index, 0, kernel.VFSettings{VLAN: &kernel.VLAN{ID: vlan}}); err != nil {
			t.Fatal(err)
		}
	}
	master := func(netdev string) int {
		end, err := h.host.handle.LinkByName(switchEnd(netdev))
		if err != nil {
			t.Fatal(err)
		}
		return end.Attrs().MasterIndex
	}
	switch a, b, c, none := master("ibp24s0v0"), master("ibp64s0v0"), master("ibp79s0v0"), master("ibp79s0v1"); {
	case a != b:
		t.Error("two VFs of VLAN 100 are on different switches")
	case a == c:
		t.Error("VLANs 100 and 200 share a switch")
	case none == a || none == c || none != master("ibp24s0"):
		t.Error("a VF without a VLAN is not on the switch of its port")
	}
}
