//go:build guest

package kernel

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/netnstest"
)

// pf is an 82576 of the guest of test/vm, whose driver is igb.
const pf = "0000:43:00.0"

// guestVFs makes VFs of the PF for the time of the test, and returns the
// guest's kernel and the VFs' addresses.
func guestVFs(t *testing.T, number int) (*Netlink, []string) {
	t.Helper()
	k, err := New("/proc/1/ns/net")
	must(t, err)
	must(t, k.Host().SetUp(byDevice(t, k.Host(), pf).Index))
	file := filepath.Join("/sys/bus/pci/devices", pf, "sriov_numvfs")
	must(t, os.WriteFile(file, []byte(strconv.Itoa(number)), 0))
	t.Cleanup(func() { must(t, os.WriteFile(file, []byte("0"), 0)) })
	var vfs []string
	for n := range number {
		target, err := os.Readlink(filepath.Join("/sys/bus/pci/devices", pf, "virtfn"+strconv.Itoa(n)))
		must(t, err)
		vfs = append(vfs, filepath.Base(target))
		byDevice(t, k.Host(), vfs[n])
	}
	return k, vfs
}

// byDevice waits for the interface of a PCI function.
func byDevice(t *testing.T, n Namespace, address string) Link {
	t.Helper()
	return await(t, n, address, func(Link) bool { return true })
}

// await waits for the interface of a PCI function to be in some state.
func await(t *testing.T, n Namespace, address string, holds func(Link) bool) Link {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		links, err := n.Links()
		must(t, err)
		for _, link := range links {
			if link.Device == address && holds(link) {
				return link
			}
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("no interface of %s in the state that was waited for, among %+v", address, links)
		}
	}
}

func TestGuestSettings(t *testing.T) {
	k, _ := guestVFs(t, 2)
	host := k.Host()
	index := byDevice(t, host, pf).Index
	// Without a link igb takes no rate.
	await(t, host, pf, func(l Link) bool { return l.Carrier })
	before := byDevice(t, host, pf).VFs
	if len(before) != 2 || before[1].VLAN == nil || before[1].SpoofCheck == nil || before[1].Trust == nil || before[1].TxRate == nil {
		t.Fatalf("got VFs %+v, want two with all their settings", before)
	}
	want := VFSettings{
		HardwareAddress: net.HardwareAddr{2, 0, 0, 0, 0x43, 1}, VLAN: &VLAN{ID: 100, QoS: 3, Protocol: "802.1Q"},
		SpoofCheck: ptr.To(false), Trust: ptr.To(true), TxRate: &TxRate{Max: 100},
	}
	must(t, host.SetVF(index, 1, want))
	want.LinkState = before[1].LinkState
	after := byDevice(t, host, pf).VFs
	if diff := cmp.Diff(want, after[1]); diff != "" {
		t.Errorf("settings of the VF (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before[0], after[0]); diff != "" {
		t.Errorf("settings of the other VF (-before +after):\n%s", diff)
	}
	must(t, host.SetVF(index, 1, VFSettings{VLAN: &VLAN{}, SpoofCheck: ptr.To(true), Trust: ptr.To(false), TxRate: &TxRate{}}))
	want.VLAN, want.SpoofCheck, want.Trust, want.TxRate = &VLAN{Protocol: "802.1Q"}, ptr.To(true), ptr.To(false), &TxRate{}
	if diff := cmp.Diff(want, byDevice(t, host, pf).VFs[1]); diff != "" {
		t.Errorf("settings after going back (-want +got):\n%s", diff)
	}
}

// The kernel's reason is in the error.
func TestGuestRefusals(t *testing.T) {
	k, _ := guestVFs(t, 1)
	index := byDevice(t, k.Host(), pf).Index
	for name, test := range map[string]struct {
		settings VFSettings
		want     []string
	}{
		"802.1ad":     {VFSettings{VLAN: &VLAN{ID: 100, Protocol: "802.1ad"}}, []string{"VLAN 100", "802.1ad", "protocol not supported"}},
		"link state":  {VFSettings{LinkState: ptr.To("disable")}, []string{`link state "disable"`, "not supported"}},
		"lowest rate": {VFSettings{TxRate: &TxRate{Min: 10, Max: 100}}, []string{"rate min 10 max 100", "invalid argument"}},
		"GUID":        {VFSettings{NodeGUID: net.HardwareAddr{2, 0, 0, 0, 0, 0, 0, 1}}, []string{"node GUID 02:00:00:00:00:00:00:01"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := k.Host().SetVF(index, 0, test.settings)
			var errno syscall.Errno
			if !errors.As(err, &errno) {
				t.Fatalf("got %v, want an error of the kernel", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// What older kernels are asked by other means is the same.
func TestGuestAskDriver(t *testing.T) {
	k, vfs := guestVFs(t, 1)
	links, err := k.Host().Links()
	must(t, err)
	asked := append([]Link{}, links...)
	for i := range asked {
		asked[i].Device = ""
	}
	k.host.addDevices(asked)
	for i, link := range links {
		if (link.Device == pf || link.Device == vfs[0]) && asked[i].Device != link.Device {
			t.Errorf("the driver of %s says %q, want %q", link.Name, asked[i].Device, link.Device)
		}
	}
}

// A VF is found in a pod, and comes back when the pod's namespace ends.
func TestGuestMove(t *testing.T) {
	k, vfs := guestVFs(t, 1)
	netns := netnstest.New(t)
	pod, err := k.Open(netns)
	must(t, err)
	link := byDevice(t, k.Host(), vfs[0])
	must(t, k.Host().Move(link.Index, pod))
	moved := byDevice(t, pod, vfs[0])
	must(t, pod.Rename(moved.Index, "net1"))
	must(t, pod.SetUp(moved.Index))
	must(t, pod.Close())
	must(t, netns.Close())
	back := byDevice(t, k.Host(), vfs[0])
	if back.Name != "net1" {
		t.Errorf("the interface came back as %s, want net1", back.Name)
	}
	must(t, k.Host().SetDown(back.Index))
	must(t, k.Host().Rename(back.Index, link.Name))
}

func TestGuestRDMA(t *testing.T) {
	k, vfs := guestVFs(t, 1)
	name := byDevice(t, k.Host(), vfs[0]).Name
	for _, command := range [][]string{
		{"modprobe", "rdma_rxe"}, {"ip", "link", "set", name, "up"}, {"rdma", "link", "add", "rxe7", "type", "rxe", "netdev", name},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("rdma", "link", "delete", "rxe7").Run() })
	links, err := k.Host().RDMALinks()
	must(t, err)
	data, err := os.ReadFile("/sys/class/infiniband/rxe7/node_guid")
	must(t, err)
	want := strings.ReplaceAll(strings.TrimSpace(string(data)), ":", "")
	if len(links) != 1 || links[0].Name != "rxe7" || strings.ReplaceAll(links[0].NodeGUID, ":", "") != want {
		t.Errorf("got RDMA devices %+v, want rxe7 with GUID %s, as sysfs has it", links, want)
	}
	if exclusive, err := k.Host().RDMAExclusive(); err != nil || exclusive {
		t.Errorf("exclusive mode: got %v, %v, want shared", exclusive, err)
	}
	if err := k.Host().MoveRDMA("rxe7", k.Host()); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("moving a device that cannot be moved: got %v", err)
	}
	must(t, k.Host().RenameRDMA("rxe7", "mine"))
	renamed, err := k.Host().RDMALinks()
	must(t, err)
	if len(renamed) != 1 || renamed[0].Name != "mine" || renamed[0].Index != links[0].Index {
		t.Errorf("renamed, the RDMA devices are %+v, were %+v", renamed, links)
	}
	must(t, k.Host().RenameRDMA("mine", "rxe7"))
}
