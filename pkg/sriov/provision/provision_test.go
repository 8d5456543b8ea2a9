package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/selection"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const (
	pfA = "0000:18:00.0"
	pfB = "0000:40:00.0"
)

// bench is a machine and what sets up its PFs.
type bench struct {
	*fixture.Machine
	t    *testing.T
	opts Options
	used []string
	p    *Provisioner
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Machine: fixture.New(t), t: t}
	b.opts = Options{
		SysfsRoot: b.Root, Write: b.Write, Host: b.Host,
		Hold: func(_ context.Context, vf topology.Address) (func(), bool, error) {
			return func() {}, !slices.Contains(b.used, vf.String()), nil
		},
		Wait: 200 * time.Millisecond, Retry: time.Nanosecond,
	}
	b.p = New(b.opts)
	return b
}

func (b *bench) scan() nic.Machine {
	b.t.Helper()
	machine, faults, err := nic.Scan(b.t.Context(), nic.Options{SysfsRoot: b.Root, Host: b.Host})
	if err != nil || len(faults) > 0 {
		b.t.Fatal(err, faults)
	}
	return machine
}

// run sets all PFs up and returns what is wrong, by PF.
func (b *bench) run(wanted selection.Wanted) map[string]string {
	b.t.Helper()
	_, failed := b.p.Run(b.t.Context(), b.scan().PFs, func(nic.PF) selection.Wanted { return wanted })
	texts := map[string]string{}
	for address, err := range failed {
		texts[address.String()] = err.Error()
	}
	return texts
}

func (b *bench) want(failed map[string]string, parts ...string) {
	b.t.Helper()
	if (len(failed) > 0) != (len(parts) > 0) {
		b.t.Fatalf("got failures %v, want %q", failed, parts)
	}
	for _, part := range parts {
		if !strings.Contains(failed[pfA], part) {
			b.t.Errorf("failure %q does not say %q", failed[pfA], part)
		}
	}
}

func numVFs(n int) selection.Wanted { return selection.Wanted{NumVFs: &n} }

func TestMakeVFs(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "igb", VFDriver: "igbvf", Netdev: "eth0"})
	b.Host.Change(pfA, func(l *kernel.Link) { l.Up, l.Carrier = false, false })
	upBefore := false
	b.Refuse = func(path, _ string) error {
		upBefore = upBefore || filepath.Base(path) == "sriov_numvfs" && b.Host.Link(pfA).Up && b.Host.Link(pfA).MTU == 9000
		return nil
	}
	b.want(b.run(selection.Wanted{NumVFs: ptr.To(3), MTU: ptr.To(9000)}))
	if !upBefore {
		t.Error("the VFs were made before the PF was up and had its MTU")
	}
	pf := b.scan().PFs[0]
	if len(pf.VFs) != 3 || pf.Netdev.MTU != 9000 {
		t.Errorf("got PF %+v, want 3 VFs and MTU 9000", pf)
	}
	for _, vf := range pf.VFs {
		if vf.Driver != "igbvf" || vf.Netdev == nil || vf.Netdev.MTU != 9000 {
			t.Errorf("got VF %+v, want a driver and MTU 9000", vf)
		}
	}
	b.Writes = nil
	b.want(b.run(selection.Wanted{NumVFs: ptr.To(3), MTU: ptr.To(9000)}))
	if len(b.Writes) > 0 {
		t.Errorf("the second time changed %v, want nothing", b.Writes)
	}
}

func TestNumbersThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct {
		has    int
		wanted selection.Wanted
		want   []string
	}{
		"more than the NIC has":         {0, numVFs(9), []string{"numVFs is 9", "allows 8", "firmware"}},
		"has others":                    {2, numVFs(4), []string{"has 2 VFs", "numVFs is 4", "drain"}},
		"none are wanted":               {2, numVFs(0), []string{"has 2 VFs", "numVFs is 0"}},
		"somebody else made too few":    {1, selection.Wanted{NumVFs: ptr.To(4), ExternallyManaged: true}, []string{"has 1 VFs", "numVFs is 4", "whatever makes the VFs"}},
		"somebody else made none":       {0, selection.Wanted{NumVFs: ptr.To(4), ExternallyManaged: true}, []string{"has 0 VFs"}},
		"somebody else made them":       {4, selection.Wanted{NumVFs: ptr.To(4), ExternallyManaged: true}, nil},
		"nobody said anything":          {5, selection.Wanted{}, nil},
		"none are there and are wanted": {0, numVFs(0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "eth0"})
			b.SetNumVFs(pfA, test.has)
			_, failed := b.p.Run(t.Context(), b.scan().PFs, func(nic.PF) selection.Wanted { return test.wanted })
			for _, err := range failed {
				if !errors.Is(err, ErrNumber) {
					t.Errorf("got %v, want ErrNumber", err)
				}
			}
			b.want(b.run(test.wanted), test.want...)
			if got := b.Read(pfA, "sriov_numvfs"); got != fmt.Sprint(test.has) {
				t.Errorf("there are %s VFs now, want %d as before", got, test.has)
			}
		})
	}
}

// One PF that the kernel refuses holds up no other, and is tried again.
func TestRefused(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "eth0"})
	b.AddPF(fixture.PF{Address: pfB, Driver: "mlx5_core", Netdev: "eth1"})
	b.Refuse = func(path, _ string) error {
		if strings.Contains(path, pfA) {
			return unix.ENOSPC
		}
		return nil
	}
	b.want(b.run(numVFs(2)), "make 2 VFs", "no space left on device", "pci=realloc")
	if got := b.Read(pfB, "sriov_numvfs"); got != "2" {
		t.Errorf("the other PF has %s VFs, want 2", got)
	}
	if b.p.NextRetry().IsZero() {
		t.Error("no retry is planned")
	}
	b.Refuse = nil
	b.want(b.run(numVFs(2)))
	if got := b.Read(pfA, "sriov_numvfs"); got != "2" || !b.p.NextRetry().IsZero() {
		t.Errorf("the PF has %s VFs after the retry, want 2 and no further retry", got)
	}
}

// Between two attempts there is some time, or each one's events would cause
// the next.
func TestRetryWaits(t *testing.T) {
	b := newBench(t)
	b.opts.Retry = time.Hour
	b.p = New(b.opts)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "eth0"})
	attempts := 0
	b.Refuse = func(string, string) error { attempts++; return unix.EIO }
	for range 3 {
		b.want(b.run(numVFs(2)), "input/output error")
	}
	if attempts != 1 {
		t.Errorf("got %d attempts, want 1", attempts)
	}
	if _, failed := b.p.Run(t.Context(), nil, nil); len(failed) > 0 || !b.p.NextRetry().IsZero() {
		t.Errorf("a PF that is gone is still to be tried again: %v", failed)
	}
}

func TestInterfaceMissing(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: ""})
	b.want(b.run(numVFs(1)), "the interface of VF 0 (0000:18:00.1) is missing", "200ms")
}

// After a rescan of the PCI bus a PF has its driver before its interface.
func TestInterfaceThatComesLate(t *testing.T) {
	b := newBench(t)
	b.opts.Wait = 30 * time.Second
	b.p = New(b.opts)
	b.AddPF(fixture.PF{Address: pfA, Driver: "igb", VFDriver: "igbvf", Netdev: "eth0"})
	late := b.Host.Link(pfA)
	late.Up = false
	b.Host.Take(pfA)
	upBefore := false
	b.Refuse = func(path, _ string) error {
		upBefore = upBefore || filepath.Base(path) == "sriov_numvfs" && b.Host.Link(pfA).Up
		return nil
	}
	before := b.Host.Looks()
	go func() {
		for b.Host.Looks() < before+4 { // it was looked for, and not found
			runtime.Gosched()
		}
		b.Host.Add(late)
	}()
	b.want(b.run(numVFs(2)))
	if !upBefore {
		t.Error("the VFs were made before the PF was up")
	}
}

// A PF that hangs in its driver is reported, and the others go on.
func TestHangs(t *testing.T) {
	b := newBench(t)
	done := make(chan struct{}, 8)
	b.opts.Limit, b.opts.Done = 50*time.Millisecond, func() { done <- struct{}{} }
	hang := make(chan struct{})
	write := b.opts.Write
	b.opts.Write = func(path, value string) error {
		if strings.Contains(path, pfA) {
			<-hang
		}
		return write(path, value)
	}
	b.p = New(b.opts)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "eth0"})
	b.AddPF(fixture.PF{Address: pfB, Driver: "mlx5_core", Netdev: "eth1"})
	b.want(b.run(numVFs(1)), "goes on")
	<-done
	if got := b.Read(pfB, "sriov_numvfs"); got != "1" {
		t.Errorf("the other PF has %s VFs, want 1", got)
	}
	b.want(b.run(numVFs(1)), "goes on")
	close(hang)
	<-done
	b.want(b.run(numVFs(1)))
}

func TestGUIDs(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true, ZeroGUIDs: true})
	b.want(b.run(numVFs(2)))
	var guids []string
	for i, vf := range b.scan().PFs[0].VFs {
		guids = append(guids, vf.RDMA.NodeGUID.String())
		if got := b.Read(pfA, fmt.Sprintf("sriov/%d/policy", i)); got != "Follow" {
			t.Errorf("VF %d has policy %q, want Follow", i, got)
		}
		if node, port := b.Read(pfA, fmt.Sprintf("sriov/%d/node", i)), b.Read(pfA, fmt.Sprintf("sriov/%d/port", i)); node != guids[i] || port != guids[i] {
			t.Errorf("VF %d was given node %s and port %s, and has %s", i, node, port, guids[i])
		}
	}
	want := []string{"a2:88:c2:03:19:00:00:00", "a2:88:c2:03:1a:00:00:00"}
	if diff := cmp.Diff(want, guids); diff != "" {
		t.Errorf("GUIDs (-want +got):\n%s", diff)
	}
}

// A VF that a claim has stays without a GUID, and untouched, until it is free.
func TestGUIDOfUsedVF(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true, ZeroGUIDs: true})
	b.SetNumVFs(pfA, 2)
	b.used = []string{fixture.VF(pfA, 0)}
	wanted := selection.Wanted{NumVFs: ptr.To(2), MTU: ptr.To(2044)}
	b.want(b.run(wanted))
	vfs := b.scan().PFs[0].VFs
	if !kernel.IsZero(vfs[0].RDMA.NodeGUID) || vfs[0].Netdev.MTU != 4092 || kernel.IsZero(vfs[1].RDMA.NodeGUID) || vfs[1].Netdev.MTU != 2044 {
		t.Errorf("got VFs %+v, want the first untouched and the second with GUID and MTU", vfs)
	}
	for _, write := range b.Writes {
		if strings.Contains(write, b.used[0]) {
			t.Errorf("the VF that is used was changed by %s", write)
		}
	}
	b.used = nil
	b.want(b.run(wanted))
	for _, vf := range b.scan().PFs[0].VFs {
		if kernel.IsZero(vf.RDMA.NodeGUID) || vf.Netdev.MTU != 2044 {
			t.Errorf("got VF %+v, want a GUID and MTU 2044", vf)
		}
	}
}

// Linux's own mlx5 has no files for GUIDs, and takes them over netlink.
func TestGUIDOverNetlink(t *testing.T) {
	b := newBench(t)
	b.AddPF(fixture.PF{Address: pfA, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true, ZeroGUIDs: true})
	b.Remove(pfA, "sriov")
	failed := b.run(numVFs(1))
	guid := net.HardwareAddr{0xa2, 0x88, 0xc2, 3, 0x19, 0, 0, 0}
	want := kernel.VFSettings{NodeGUID: guid, PortGUID: guid, LinkState: ptr.To("auto")}
	if diff := cmp.Diff(want, b.Host.Link(pfA).VFs[0]); diff != "" {
		t.Errorf("settings of the VF (-want +got):\n%s", diff)
	}
	// The fixture's NIC does not take it, which must be told.
	b.want(failed, "give VF 0 (0000:18:00.1) a GUID", guid.String())
}

func TestGUIDIsUnique(t *testing.T) {
	seen := map[string]string{}
	for _, pf := range []string{"a0:88:c2:03:00:12:34:56", "a0:88:c2:03:00:12:34:57", "94:6d:ae:03:00:12:34:56"} {
		own, err := net.ParseMAC(pf)
		if err != nil {
			t.Fatal(err)
		}
		seen[pf] = pf
		for vf := range 127 {
			guid, err := GUID(own, vf)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s VF %d", pf, vf)
			if other, taken := seen[guid.String()]; taken {
				t.Errorf("%s and %s have the same GUID %s", name, other, guid)
			}
			seen[guid.String()] = name
		}
		if own.String() != pf {
			t.Errorf("the PF's own GUID became %s", own)
		}
	}
	for _, bad := range []net.HardwareAddr{nil, make(net.HardwareAddr, 8), {1, 2, 3, 4, 5, 6}} {
		if guid, err := GUID(bad, 0); err == nil {
			t.Errorf("PF %s: got GUID %s, want an error", bad, guid)
		}
	}
}
