//go:build guest

package hardware

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// overVF makes an RDMA device, in software, on a VF.
func overVF(t *testing.T, name string) (vf string) {
	t.Helper()
	try(t, "modprobe", "rdma_rxe")
	vf = makeVFs(t, pf0, 1)[0]
	interfaceName := netdev(t, vf)
	try(t, "ip", "link", "set", interfaceName, "up")
	try(t, "rdma", "link", "add", name, "type", "rxe", "netdev", interfaceName)
	t.Cleanup(func() {
		// It may have gone with its VF.
		_ = exec.Command("rdma", "link", "delete", name).Run()
	})
	return vf
}

func TestAVFCarriesRDMA(t *testing.T) {
	vf := overVF(t, "rxe0")
	await(t, "the link to be active", func() error {
		if state := read(t, "/sys/class/infiniband/rxe0/ports/1/state"); !strings.Contains(state, "ACTIVE") {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
	if got := read(t, "/sys/class/infiniband/rxe0/ports/1/link_layer"); got != "Ethernet" {
		t.Errorf("link layer %s, want Ethernet", got)
	}
	// It is no child of the PCI device: its network interface tells which it is.
	if got := read(t, "/sys/class/infiniband/rxe0/parent"); got != netdev(t, vf) {
		t.Errorf("it says that it is on %s, want %s", got, netdev(t, vf))
	}
	if _, err := os.Stat("/dev/infiniband/uverbs0"); err != nil {
		t.Errorf("programs cannot use it: %v", err)
	}
	link, err := netlink.RdmaLinkByName("rxe0")
	if err != nil {
		t.Fatalf("the kernel does not tell about it: %v", err)
	}
	if mode, err := netlink.RdmaSystemGetNetnsMode(); err != nil || mode != "shared" {
		t.Errorf("RDMA devices belong to namespaces in mode %q, want shared: %v", mode, err)
	}
	t.Logf("node GUID %s", link.Attrs.NodeGuid)
}

// A software RDMA device does not follow its interface into a namespace: the
// kernel removes it.
func TestRDMAInSoftwareEndsWhenItsVFMoves(t *testing.T) {
	vf := overVF(t, "rxe1")
	namespace(t, "a")
	move(t, vf, "a", "192.168.9.1/24")
	await(t, "the RDMA device to go", func() error {
		if _, err := os.Stat("/sys/class/infiniband/rxe1"); err == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
}

// In exclusive mode a namespace sees its own RDMA devices alone. One in software
// belongs to the machine for good: this kernel neither moves it nor makes it
// elsewhere.
func TestRDMADevicesCanBelongToNamespaces(t *testing.T) {
	overVF(t, "rxe2")
	if err := netlink.RdmaSystemSetNetnsMode("exclusive"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The kernel refuses it while a namespace is still being taken away.
		await(t, "going back to shared mode", func() error { return netlink.RdmaSystemSetNetnsMode("shared") })
	})
	namespace(t, "a")
	output, err := exec.Command("rdma", "dev", "set", "rxe2", "netns", "a").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "Operation not supported") {
		t.Errorf("moving a software RDMA device: got %v, %s", err, output)
	}
	if inside := try(t, "ip", "netns", "exec", "a", "rdma", "dev"); strings.Contains(inside, "rxe2") {
		t.Errorf("the namespace sees another's RDMA device: %q", inside)
	}
}
