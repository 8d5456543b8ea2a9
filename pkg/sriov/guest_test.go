//go:build guest

package sriov

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
)

// These tests run on real VFs, in the guest of test/vm: igb cards, of which
// guestSwitched is behind a switch, and guestRooted straight in a root port, so
// that each of its VFs has an IOMMU group of its own.
const (
	guestSwitched = "0000:43:00.0"
	guestRooted   = "0000:81:00.0"
	guestPatience = 30 * time.Second
)

// guest is the guest with some VFs.
type guest struct {
	t    *testing.T
	opts Options
	vfs  []string
}

func newGuest(t *testing.T, pf string, number int) *guest {
	t.Helper()
	k, err := kernel.New("/proc/1/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, opts: Options{DataDir: t.TempDir(), BootID: "boot", Kernel: k}}
	g.run("ip", "link", "set", g.netdev(pf), "up")
	numVFs := filepath.Join("/sys/bus/pci/devices", pf, "sriov_numvfs")
	if err := vfio.Write(numVFs, fmt.Sprint(number)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vfio.Write(numVFs, "0"); err != nil {
			t.Error(err)
		}
	})
	for n := range number {
		target, err := os.Readlink(filepath.Join("/sys/bus/pci/devices", pf, fmt.Sprintf("virtfn%d", n)))
		if err != nil {
			t.Fatal(err)
		}
		g.vfs = append(g.vfs, filepath.Base(target))
		g.netdev(filepath.Base(target))
	}
	return g
}

func (g *guest) family() *Family { return New(g.opts) }

func (g *guest) run(args ...string) string {
	g.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// await waits until something is as it should be.
func (g *guest) await(what string, check func() error) {
	g.t.Helper()
	deadline := time.Now().Add(guestPatience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-g.t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (g *guest) netdev(address string) string {
	g.t.Helper()
	var name string
	g.await("an interface of "+address, func() error {
		entries, err := os.ReadDir(filepath.Join("/sys/bus/pci/devices", address, "net"))
		if err == nil && len(entries) != 1 {
			err = fmt.Errorf("it has %d", len(entries))
		}
		if err == nil {
			name = entries[0].Name()
		}
		return err
	})
	return name
}

// pod makes a network namespace that ends with the test, if it has not before.
func (g *guest) pod(name string) device.Sandbox {
	g.t.Helper()
	g.run("ip", "netns", "add", name)
	path := "/run/netns/" + name
	if _, err := os.Stat(path); err != nil {
		path = "/var/run/netns/" + name
	}
	g.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return device.Sandbox{Pod: device.Pod{Namespace: "team", Name: name, UID: types.UID("uid-" + name)}, ID: "sandbox-" + name, Path: path}
}

// attach joins a VF to a pod, whose namespace is open for that time only.
func (g *guest) attach(gr device.Grant, pod device.Sandbox) (attachment device.Attachment, err error) {
	netns, err := os.Open(pod.Path)
	if err != nil {
		return attachment, err
	}
	defer func() { err = errors.Join(err, netns.Close()) }()
	pod.Netns = netns
	return g.family().Attach(g.t.Context(), gr, pod)
}

// give prepares and attaches a VF.
func (g *guest) give(gr device.Grant, pod device.Sandbox) device.Attachment {
	g.t.Helper()
	_, err := g.family().Prepare(g.t.Context(), gr)
	g.must(err)
	attachment, err := g.attach(gr, pod)
	g.must(err)
	return attachment
}

func (g *guest) release(gr device.Grant) {
	g.t.Helper()
	g.must(g.family().Release(g.t.Context(), gr))
}

// state is what the kernel says of all VFs, on the host.
func (g *guest) state() string {
	g.t.Helper()
	links, err := g.opts.Kernel.Host().Links()
	g.must(err)
	var out []string
	for _, address := range g.vfs {
		driver, _ := os.Readlink(filepath.Join("/sys/bus/pci/devices", address, "driver"))
		override, err := os.ReadFile(filepath.Join("/sys/bus/pci/devices", address, "driver_override"))
		g.must(err)
		line := fmt.Sprintf("%s %s %s", address, filepath.Base(driver), strings.TrimSpace(string(override)))
		for _, l := range links {
			if l.Device == address {
				line += fmt.Sprintf(" %s %s mtu %d up %t", l.Name, l.HardwareAddress, l.MTU, l.Up)
			}
		}
		out = append(out, line)
	}
	for _, l := range links {
		for n := range len(l.VFs) {
			s := fromKernel(l.VFs[n])
			out = append(out, fmt.Sprintf("%s vf %d: %s %+v spoof %v trust %v rate %+v %s", l.Device, n, s.HardwareAddress,
				ptr.Deref(s.VLAN, vfstate.VLAN{}), ptr.Deref(s.SpoofCheck, false), ptr.Deref(s.Trust, false), ptr.Deref(s.TxRate, vfstate.Rate{}), s.LinkState))
		}
	}
	return strings.Join(out, "\n")
}

// clean fails the test unless all VFs are as they were and nothing is left.
func (g *guest) clean(before string) {
	g.t.Helper()
	if diff := cmp.Diff(before, g.state()); diff != "" {
		g.t.Errorf("the VFs are not what they were (-before +after):\n%s", diff)
	}
	left, err := filepath.Glob(filepath.Join(g.opts.DataDir, journalFolder, "*.json*"))
	g.must(err)
	if len(left) > 0 {
		g.t.Errorf("left behind: %v", left)
	}
}

func ping(from, to string) error {
	out, err := exec.Command("ip", "netns", "exec", from, "ping", "-c", "1", "-W", "1", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// Pods with VFs reach each other, with the address that the claim asks for, and
// only those of their VLAN.
func TestGuestPodsReachEachOther(t *testing.T) {
	g := newGuest(t, guestSwitched, 3)
	before := g.state()
	config := func(n int, vlan int) func(*v1alpha1.VfConfig) {
		return func(c *v1alpha1.VfConfig) {
			c.MAC, c.Addresses = fmt.Sprintf("02:00:00:00:00:%02x", n), []string{fmt.Sprintf("192.168.9.%d/24", n), fmt.Sprintf("fd00:9::%d/64", n)}
			if n > 1 {
				c.Routes = []v1alpha1.VfRoute{{Destination: "10.20.0.0/16", Gateway: "192.168.9.1"}}
			}
			if vlan > 0 {
				c.VLAN, c.QoS = ptr.To(vlan), ptr.To(2)
			}
		}
	}
	grants := []device.Grant{grant("a", g.vfs[0], config(1, 100)), grant("b", g.vfs[1], config(2, 100)), grant("c", g.vfs[2], config(3, 0))}
	for n, name := range []string{"a", "b", "c"} {
		got := g.give(grants[n], g.pod(name))
		want := device.Attachment{
			Interface: "net1", HardwareAddress: fmt.Sprintf("02:00:00:00:00:%02x", n+1), Changed: true,
			IPs: []string{fmt.Sprintf("192.168.9.%d/24", n+1), fmt.Sprintf("fd00:9::%d/64", n+1)},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pod %s (-want +got):\n%s", name, diff)
		}
	}
	g.await("the pods on one VLAN", func() error { return ping("a", "192.168.9.2") })
	if neighbours := g.run("ip", "-n", "a", "neigh"); !strings.Contains(neighbours, "02:00:00:00:00:02") {
		t.Errorf("pod a does not know b by the address of its claim: %s", neighbours)
	}
	if ping("a", "192.168.9.3") == nil {
		t.Error("a pod without VLAN answers one with a VLAN")
	}
	if routes := g.run("ip", "-n", "b", "route"); !strings.Contains(routes, "10.20.0.0/16 via 192.168.9.1") {
		t.Errorf("pod b has the routes %s", routes)
	}
	for _, gr := range grants {
		g.release(gr)
	}
	g.clean(before)
}

// The namespace ends under us: the kernel gives the VF back as net1, which the
// next one would be called too.
func TestGuestNamespaceEnds(t *testing.T) {
	g := newGuest(t, guestSwitched, 2)
	before := g.state()
	for range 3 {
		var grants []device.Grant
		for n, address := range g.vfs {
			name := fmt.Sprintf("gone-%d", n)
			gr := grant(name, address, func(c *v1alpha1.VfConfig) { c.MAC, c.MTU = fmt.Sprintf("02:00:00:00:00:%02x", n+1), ptr.To(1400) })
			g.give(gr, g.pod(name))
			grants = append(grants, gr)
		}
		for n := range grants {
			g.run("ip", "netns", "del", fmt.Sprintf("gone-%d", n))
		}
		for _, gr := range grants {
			g.release(gr)
		}
		g.clean(before)
	}
}

func TestGuestVFIO(t *testing.T) {
	config := func(c *v1alpha1.VfConfig) { c.Mode, c.VLAN = v1alpha1.VfModeVFIO, ptr.To(30) }
	t.Run("group of its own", func(t *testing.T) {
		g := newGuest(t, guestRooted, 2)
		before := g.state()
		gr := grant("c", g.vfs[0], config)
		for range 2 {
			edits, err := g.family().Prepare(t.Context(), gr)
			g.must(err)
			if len(edits.Device.DeviceNodes) != 2 || edits.Attach {
				t.Errorf("the container gets %s", describeEdits(edits))
			}
			for _, node := range edits.Device.DeviceNodes {
				if _, err := os.Stat(node.Path); err != nil {
					t.Error(err)
				}
			}
		}
		if state := g.state(); !strings.Contains(state, g.vfs[0]+" vfio-pci vfio-pci") || !strings.Contains(state, "{ID:30") {
			t.Errorf("the VF is not bound to vfio-pci, or not in its VLAN:\n%s", state)
		}
		g.release(gr)
		g.clean(before)
	})
	t.Run("group with others", func(t *testing.T) {
		g := newGuest(t, guestSwitched, 2)
		before := g.state()
		gr := grant("c", g.vfs[0], config)
		_, err := g.family().Prepare(t.Context(), gr)
		wants(t, err, g.vfs[0], g.vfs[1], guestSwitched, "igbvf", "IOMMU group")
		g.release(gr)
		g.clean(before)
	})
}

// The user is told what the kernel says, and which field asked for it.
func TestGuestRefusals(t *testing.T) {
	g := newGuest(t, guestSwitched, 1)
	before := g.state()
	for _, tc := range []struct {
		config func(*v1alpha1.VfConfig)
		want   []string
	}{
		{func(c *v1alpha1.VfConfig) { c.VLAN, c.Proto = ptr.To(5), "802.1ad" }, []string{"vlan", "802.1ad", "protocol not supported"}},
		{func(c *v1alpha1.VfConfig) { c.LinkState = "disable" }, []string{"linkState", "disable", "operation not supported"}},
		{func(c *v1alpha1.VfConfig) { c.MinTxRate = ptr.To(5) }, []string{"minTxRate", "5 and 0", "invalid argument"}},
		{func(c *v1alpha1.VfConfig) { c.MTU = ptr.To(20000) }, []string{"mtu", "20000"}},
		{func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA }, []string{"no RDMA device", g.vfs[0]}},
	} {
		gr := grant("c", g.vfs[0], func(c *v1alpha1.VfConfig) {
			c.Trust, c.SpoofCheck = ptr.To(true), ptr.To(false)
			tc.config(c)
		})
		_, err := g.family().Prepare(t.Context(), gr)
		wants(t, err, append(tc.want, g.vfs[0])...)
		g.release(gr)
		g.clean(before)
	}
}

// A crash at each step of a VF's life, on the real kernel.
func TestGuestCrashes(t *testing.T) {
	g := newGuest(t, guestSwitched, 1)
	before := g.state()
	gr := grant("c", g.vfs[0], func(c *v1alpha1.VfConfig) {
		c.MAC, c.VLAN, c.Trust, c.SpoofCheck, c.MTU = "02:00:00:00:00:07", ptr.To(7), ptr.To(true), ptr.To(false), ptr.To(1400)
		c.Addresses = []string{"192.168.9.1/24"}
	})
	for nth := 0; ; nth++ {
		pod := g.pod("crash")
		crashed, count := false, 0
		process := func(do func(*Family) error) {
			if crashed {
				return
			}
			defer func() {
				if r := recover(); r != nil {
					if r != errCrash { //nolint:errorlint // the very value
						panic(r) //nolint:forbidigo // a failure of the code under test
					}
					crashed = true
				}
			}()
			f := g.family()
			f.at = func(faultpoint.Step) error {
				if count++; count == nth+1 {
					panic(errCrash) //nolint:forbidigo // nothing that is deferred may see an error
				}
				return nil
			}
			g.must(do(f))
		}
		process(func(f *Family) error { _, err := f.Prepare(t.Context(), gr); return err })
		process(func(f *Family) error {
			netns, err := os.Open(pod.Path)
			g.must(err)
			defer netns.Close()
			open := pod
			open.Netns = netns
			_, err = f.Attach(t.Context(), gr, open)
			return err
		})
		process(func(f *Family) error { return f.Release(t.Context(), gr) })
		if nth%2 == 1 { // sometimes the pod is gone by then
			g.run("ip", "netns", "del", "crash")
		}
		g.release(gr)
		g.clean(before)
		if nth%2 == 0 {
			g.run("ip", "netns", "del", "crash")
		}
		if !crashed {
			t.Logf("crashed at %d steps", nth)
			return
		}
	}
}

// Many pods in a row leave no VF behind and none in a wrong state.
func TestGuestManyPods(t *testing.T) {
	g := newGuest(t, guestRooted, 2)
	before := g.state()
	files := len(g.run("ls", "/proc/self/fd"))
	for n := range 50 {
		pod := g.pod("many")
		gr := grant(fmt.Sprint("c", n), g.vfs[n%2], func(c *v1alpha1.VfConfig) {
			c.MAC, c.Addresses = fmt.Sprintf("02:00:00:00:01:%02x", n), []string{"192.168.9.7/24"}
			c.VLAN = ptr.To(n * 3)
		})
		if got := g.give(gr, pod); got.Interface != "net1" {
			t.Fatalf("round %d: the interface is called %s", n, got.Interface)
		}
		if n%3 == 0 { // the pod ends first, as usual
			g.run("ip", "netns", "del", "many")
		}
		g.release(gr)
		if n%3 != 0 {
			g.run("ip", "netns", "del", "many")
		}
	}
	g.clean(before)
	if now := len(g.run("ls", "/proc/self/fd")); now > files+20 {
		t.Errorf("descriptors grew from %d to %d characters of a listing", files, now)
	}
}

// A VF with an RDMA device, made in software, in the mode in which namespaces
// share them.
func TestGuestRDMA(t *testing.T) {
	if err := exec.Command("modprobe", "rdma_rxe").Run(); err != nil {
		t.Skipf("the guest's kernel has no RDMA in software: %v", err)
	}
	g := newGuest(t, guestSwitched, 1)
	name := g.netdev(g.vfs[0])
	g.run("ip", "link", "set", name, "up")
	g.run("rdma", "link", "add", "rxe7", "type", "rxe", "netdev", name)
	t.Cleanup(func() { _ = exec.Command("rdma", "link", "delete", "rxe7").Run() })
	gr := grant("c", g.vfs[0], func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA })
	edits, err := g.family().Prepare(t.Context(), gr)
	g.must(err)
	text := describeEdits(edits)
	if edits.Attach || !strings.Contains(text, "/dev/infiniband/uverbs") || !strings.Contains(text, "/dev/infiniband/rdma_cm") {
		t.Errorf("the container gets %s", text)
	}
	g.release(gr)
}

// A pod that shares its claim with a living one is refused, and so is the host's
// own network.
func TestGuestHolders(t *testing.T) {
	g := newGuest(t, guestSwitched, 1)
	before := g.state()
	gr := grant("c", g.vfs[0], nil)
	first, second := g.pod("first"), g.pod("second")
	g.give(gr, first)
	_, err := g.attach(gr, second)
	wants(t, err, "team/first", g.vfs[0])
	_, err = g.attach(gr, device.Sandbox{Pod: device.Pod{Namespace: "team", Name: "host", UID: "h"}, ID: "h", Path: "/proc/1/ns/net"})
	wants(t, err, "hostNetwork", "team/host")
	g.run("ip", "netns", "del", "first")
	if _, err := g.attach(gr, second); err != nil {
		t.Errorf("the second pod does not get the VF of the first, which is gone: %v", err)
	}
	g.must(g.family().Detach(t.Context(), gr, second))
	g.release(gr)
	g.clean(before)
	if err := vfio.Write("/sys/does/not/exist", "1"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a file of sysfs was made: %v", err)
	}
}
