// The simulated machine needs C, which tests in the guest are built without.

//go:build !guest

package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nickernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// dgx is a simulated machine whose VFs are real interfaces, in network
// namespaces of the kernel that the test runs on.
type dgx struct {
	t    *testing.T
	opts sriov.Options
	vfs  []simulated.NIC
}

func newDGX(t *testing.T) *dgx {
	t.Helper()
	hostPath := newNetns(t)
	beneath, err := kernel.New(hostPath)
	if err != nil {
		t.Fatal(err)
	}
	machine := simulated.New(simulated.DGXH200, "node")
	machine.Ethernet = true
	root := t.TempDir()
	if err := machine.WriteSysfs(filepath.Join(root, "sys")); err != nil {
		t.Fatal(err)
	}
	makeNodes(t, root)
	k, err := nickernel.New(t.Context(), nickernel.Options{
		Real: beneath, HostNetns: hostPath, NICs: machine.NICs(), Dir: filepath.Join(root, "nics"), BootID: "boot",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Keep(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return &dgx{t: t, vfs: machine.NICs()[0].VFs, opts: sriov.Options{
		SysfsRoot: filepath.Join(root, "sys"), DevRoot: filepath.Join(root, "dev"), DataDir: root, BootID: "boot", Kernel: k,
	}}
}

// makeNodes makes a device node, all of them the null device, for each RDMA
// device in sysfs.
func makeNodes(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "dev", "infiniband")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*/infiniband_*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		err := syscall.Mknod(filepath.Join(dir, filepath.Base(path)), syscall.S_IFCHR|0o600, 1<<8|3)
		if errors.Is(err, syscall.EPERM) {
			t.Skip("making device nodes needs a privilege that this process lacks")
		}
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			t.Fatal(err)
		}
	}
}

// newNetns makes a network namespace and returns a path to it.
func newNetns(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	made := make(chan netns.NsHandle, 1)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with its namespace
		handle, err := netns.New()
		if err != nil {
			failed <- err
			return
		}
		made <- handle
	}()
	select {
	case err := <-failed:
		t.Fatalf("make a network namespace: %v", err)
	case handle := <-made:
		t.Cleanup(func() { _ = handle.Close() })
		return fmt.Sprintf("/proc/self/fd/%d", int(handle))
	}
	return ""
}

func (d *dgx) grant(n int, change func(*v1alpha1.VfConfig)) device.Grant {
	config := v1alpha1.DefaultVfConfig()
	change(config)
	config.Default()
	name := fmt.Sprintf("c%d", n)
	return device.Grant{
		Claim: device.Claim{Namespace: "team", Name: name, UID: types.UID(name)}, Request: "nic", Device: "vf",
		Occupies: []string{"pci-" + d.vfs[n].Address}, Config: config,
	}
}

// give prepares a VF and joins it to a new pod, whose namespace it returns.
func (d *dgx) give(g device.Grant) (device.Attachment, string) {
	d.t.Helper()
	path := newNetns(d.t)
	file, err := os.Open(path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			d.t.Error(err)
		}
	}()
	family := sriov.New(d.opts)
	if _, err := family.Prepare(d.t.Context(), g); err != nil {
		d.t.Fatal(err)
	}
	name := "pod-of-" + g.Claim.Name
	attachment, err := family.Attach(d.t.Context(), g, device.Sandbox{
		Pod: device.Pod{Namespace: "team", Name: name, UID: types.UID(name)}, ID: name, Path: path, Netns: file,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return attachment, path
}

// inside calls do in a network namespace, on a thread that ends with it.
func inside(t *testing.T, path string, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.GetFromPath(path)
		if err == nil {
			err = errors.Join(netns.Set(handle), handle.Close())
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func (d *dgx) state() string {
	d.t.Helper()
	links, err := d.opts.Kernel.Host().Links()
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, l := range links {
		for _, vf := range d.vfs {
			if l.Device == vf.Address {
				out = append(out, fmt.Sprintf("%s %s %s mtu %d up %t", l.Device, l.Name, l.HardwareAddress, l.MTU, l.Up))
			}
		}
	}
	return strings.Join(out, "\n")
}

func TestSimulatedPodsReachEachOther(t *testing.T) {
	d := newDGX(t)
	before := d.state()
	var grants []device.Grant
	var pods []string
	for n := range 2 {
		ips, mac := []string{fmt.Sprintf("192.168.7.%d/24", n+1)}, fmt.Sprintf("02:00:00:00:07:%02x", n)
		g := d.grant(n, func(c *v1alpha1.VfConfig) { c.Addresses, c.MAC, c.MTU = ips, mac, ptr.To(1400) })
		got, pod := d.give(g)
		want := device.Attachment{Interface: "net1", HardwareAddress: mac, IPs: ips, Changed: true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pod %d (-want +got):\n%s", n, diff)
		}
		grants, pods = append(grants, g), append(pods, pod)
	}
	var listener net.Listener
	inside(t, pods[0], func() (err error) {
		listener, err = net.Listen("tcp", "192.168.7.1:0")
		return err
	})
	defer func() { _ = listener.Close() }()
	inside(t, pods[1], func() error {
		dialer := net.Dialer{Timeout: 20 * time.Second}
		c, err := dialer.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	for _, g := range grants {
		if err := sriov.New(d.opts).Release(t.Context(), g); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, d.state()); diff != "" {
		t.Errorf("the VFs are not what they were (-before +after):\n%s", diff)
	}
}
