//go:build guest

package sriov

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
)

// soon is how fast a change must be in the answer.
const soon = 2 * time.Second

// looking is the guest's family, which makes no VFs unless a selector says so.
func looking(t *testing.T, selectors ...v1alpha1.VFSelector) *Family {
	t.Helper()
	k, err := kernel.New("/proc/1/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pf := range []string{guestSwitched, guestRooted} {
			if err := vfio.Write(sysPath(pf, "sriov_numvfs"), "0"); err != nil {
				t.Error(err)
			}
		}
	})
	return New(Options{DataDir: t.TempDir(), BootID: "boot", Kernel: k, Config: v1alpha1.SRIOVConfig{Selectors: selectors}})
}

func sysPath(address string, below ...string) string {
	return filepath.Join(append([]string{"/sys/bus/pci/devices", address}, below...)...)
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// netdevOf is the name of the interface of a function that has one.
func netdevOf(t *testing.T, address string) string {
	t.Helper()
	entries, err := os.ReadDir(sysPath(address, "net"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("the interface of %s: %v, %v", address, entries, err)
	}
	return entries[0].Name()
}

// VFs are made on a PF that has none and is down, and a PF with another number
// keeps what it has.
func TestGuestProvision(t *testing.T) {
	name := netdevOf(t, guestSwitched)
	command(t, "ip", "link", "set", name, "down")
	f := looking(t,
		v1alpha1.VFSelector{RootDevices: []string{guestSwitched}, NumVFs: ptr.To(7), MTU: ptr.To(1400)},
		v1alpha1.VFSelector{RootDevices: []string{guestRooted}, NumVFs: ptr.To(3)},
	)
	if err := vfio.Write(sysPath(guestRooted, "sriov_numvfs"), "2"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	found := inventory(t, f)
	t.Logf("7 VFs made within %s", time.Since(start))
	if len(found.Devices) != 9 {
		t.Errorf("got %d devices, want the 7 that were made and the 2 that were there", len(found.Devices))
	}
	if len(found.Faults) != 1 || found.Faults[0].Reason != ReasonNumVFs || !strings.Contains(found.Faults[0].Subject, guestRooted) {
		t.Errorf("got faults %v, want %s for %s", found.Faults, ReasonNumVFs, guestRooted)
	}
	want := map[string]string{
		"type": "vf", "pfName": name, "pfPCIBusID": guestSwitched, "vfIndex": "4", "linkType": "ether", "rdma": "false", "driver": "igbvf",
		"vendor": "8086", "device": "10ca", "mtu": "1400", "resource.kubernetes.io/pciBusID": "0000:43:11.0",
		"resource.kubernetes.io/pcieRoot": "pci0000:40", "resource.kubernetes.io/numaNode": "0",
	}
	got := plain(found.Devices[4])
	delete(got, "linkSpeedMbps") // not known until the link is up
	if diff := cmp.Diff(want, got); diff != "" || found.Devices[4].Name != "vf-0000-43-11-0" {
		t.Errorf("attributes of %s (-want +got):\n%s", found.Devices[4].Name, diff)
	}
	if link := f.mustLink(t, guestSwitched); !link.Up || link.MTU != 1400 {
		t.Errorf("got PF %+v, want it up with MTU 1400", link)
	}
	if again := inventory(t, f); len(again.Devices) != 9 {
		t.Errorf("the second time: got %d devices", len(again.Devices))
	}
	command(t, "ip", "link", "set", name, "mtu", "1500")

	// The VFs that were made go with the driver, and those that were there stay.
	if err := f.TakeDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for pf, want := range map[string]string{guestSwitched: "0\n", guestRooted: "2\n"} {
		if number, err := os.ReadFile(sysPath(pf, "sriov_numvfs")); err != nil || string(number) != want {
			t.Errorf("PF %s has %q VFs after the driver, want %q: %v", pf, number, want, err)
		}
	}
}

func (f *Family) mustLink(t *testing.T, address string) kernel.Link {
	t.Helper()
	links, err := f.kernel.Host().Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Device == address {
			return link
		}
	}
	t.Fatalf("no interface of %s", address)
	return kernel.Link{}
}

// What the kernel refuses is told with its reason.
func TestGuestProvisionRefused(t *testing.T) {
	found := inventory(t, looking(t, v1alpha1.VFSelector{RootDevices: []string{guestSwitched}, NumVFs: ptr.To(8)}))
	if len(found.Faults) != 1 || found.Faults[0].Reason != ReasonNumVFs || !strings.Contains(found.Faults[0].Err.Error(), "allows 7 at most") {
		t.Errorf("got faults %v, want that the NIC allows 7", found.Faults)
	}
}

func TestGuestWatch(t *testing.T) {
	f := looking(t)
	command(t, "ip", "link", "set", netdevOf(t, guestSwitched), "up")
	inventory(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Watch(ctx, func() { changed <- struct{}{} })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	vf := "0000:43:10.0"
	within := func(what string, do func(), check func(device.Inventory) string) {
		t.Helper()
		do()
		start := time.Now()
		limit := time.After(guestPatience)
		for {
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("%s: not seen: %s", what, check(inventory(t, f)))
			}
			if check(inventory(t, f)) != "" {
				continue
			}
			took := time.Since(start)
			t.Logf("%s: seen after %s", what, took.Round(time.Millisecond))
			if took > soon {
				t.Errorf("%s: seen after %s, want %s", what, took, soon)
			}
			return
		}
	}
	number := func(want int) func(device.Inventory) string {
		return func(found device.Inventory) string {
			if len(found.Devices) != want {
				return fmt.Sprintf("%d devices, want %d", len(found.Devices), want)
			}
			for _, d := range found.Devices {
				if len(d.Problems) > 0 && d.Problems[0].Reason != ReasonLinkDown {
					return fmt.Sprintf("%s has problems %v", d.Name, d.Problems)
				}
			}
			return ""
		}
	}
	attribute := func(name, want string) func(device.Inventory) string {
		return func(found device.Inventory) string {
			if got := plain(found.Devices[0])[name]; got != want {
				return fmt.Sprintf("%s is %q, want %q", name, got, want)
			}
			return ""
		}
	}
	problem := func(want string) func(device.Inventory) string {
		return func(found device.Inventory) string {
			for _, p := range found.Devices[0].Problems {
				if p.Reason == want {
					return ""
				}
			}
			return fmt.Sprintf("problems are %v, want %s", found.Devices[0].Problems, want)
		}
	}
	write := func(path, value string) func() {
		return func() {
			if err := vfio.Write(path, value); err != nil {
				t.Error(err)
			}
		}
	}
	within("VFs made", write(sysPath(guestSwitched, "sriov_numvfs"), "2"), number(2))
	within("driver unbound", write(sysPath(vf, "driver", "unbind"), vf), problem(ReasonDriverUnbound))
	write(sysPath(vf, "driver_override"), "vfio-pci")()
	within("bound to vfio-pci", write("/sys/bus/pci/drivers_probe", vf), attribute("driver", "vfio-pci"))
	write(sysPath(vf, "driver_override"), "\n")()
	write(sysPath(vf, "driver", "unbind"), vf)()
	within("bound to igbvf again", write("/sys/bus/pci/drivers_probe", vf), func(found device.Inventory) string {
		return attribute("driver", "igbvf")(found) + number(2)(found)
	})
	pf := netdevOf(t, guestSwitched)
	within("PF down", func() { command(t, "ip", "link", "set", pf, "down") }, problem(ReasonLinkDown))
	within("PF renamed", func() { command(t, "ip", "link", "set", pf, "name", "renamed0") }, attribute("pfName", "renamed0"))
	within("PF named back", func() { command(t, "ip", "link", "set", "renamed0", "name", pf) }, attribute("pfName", pf))
	// From when the card has its link: its driver takes seconds to get it.
	within("PF has its link again", func() {
		command(t, "ip", "link", "set", pf, "up")
		start := time.Now()
		eventually(t, "the PF has a link", func() bool { return f.mustLink(t, guestSwitched).Carrier })
		t.Logf("the card had its link after %s", time.Since(start).Round(time.Millisecond))
	}, func(found device.Inventory) string {
		if problems := found.Devices[0].Problems; len(problems) > 0 {
			return fmt.Sprint(problems)
		}
		return ""
	})
	within("VFs removed", write(sysPath(guestSwitched, "sriov_numvfs"), "0"), number(0))
}

// An RDMA device in software stands on a VF.
func TestGuestRDMADevice(t *testing.T) {
	f := looking(t, v1alpha1.VFSelector{RDMA: ptr.To(true)})
	command(t, "ip", "link", "set", netdevOf(t, guestRooted), "up")
	if err := vfio.Write(sysPath(guestRooted, "sriov_numvfs"), "2"); err != nil {
		t.Fatal(err)
	}
	if found := inventory(t, f); len(found.Devices) != 0 {
		t.Errorf("got %d devices with RDMA, want none yet", len(found.Devices))
	}
	vf := netdevOf(t, "0000:81:10.0")
	command(t, "modprobe", "rdma_rxe")
	command(t, "ip", "link", "set", vf, "up")
	command(t, "rdma", "link", "add", "rxe5", "type", "rxe", "netdev", vf)
	t.Cleanup(func() { _ = exec.Command("rdma", "link", "delete", "rxe5").Run() })
	found := inventory(t, f)
	if len(found.Devices) != 1 || plain(found.Devices[0])["rdmaDevice"] != "rxe5" {
		t.Errorf("got devices %+v, want the VF with rxe5", found.Devices)
	}
}
