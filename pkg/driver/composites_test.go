package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// placedVFs are VFs that sit beside GPUs.
type placedVFs struct {
	*fakeVFs
	devices  []device.Device
	err      error
	prepared map[string]types.UID // by what is occupied
	given    map[string]string    // RDMA devices by device
	refuse   error
}

func (f *placedVFs) Devices(context.Context) (device.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return device.Inventory{Devices: slices.Clone(f.devices)}, f.err
}

func (f *placedVFs) Prepare(ctx context.Context, g device.Grant) (device.Edits, error) {
	f.mu.Lock()
	if f.refuse == nil {
		f.prepared[g.Occupies[0]] = g.Claim.UID
	}
	err := f.refuse
	f.mu.Unlock()
	if err != nil {
		return device.Edits{}, err
	}
	edits, err := f.fakeVFs.Prepare(ctx, g)
	if name, ok := f.given[g.Device]; ok {
		edits.Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"rdmaDevice": attribute(name)}
	}
	return edits, err
}

func (f *placedVFs) Release(ctx context.Context, g device.Grant) error {
	f.mu.Lock()
	delete(f.prepared, g.Occupies[0])
	f.mu.Unlock()
	return f.fakeVFs.Release(ctx, g)
}

// pairNode is a machine with two GPUs, and two VFs of the NIC beside the first.
type pairNode struct {
	*attachNode
	placed *placedVFs
	sysfs  topology.Sysfs
}

const (
	gpu0, gpu1     = "pci-0000:1b:00.0", "pci-0000:43:00.0"
	spare, paired  = "pci-0000:18:00.1", "pci-0000:18:00.2"
	spareVF, theVF = "vf-0000-18-00-1", "vf-0000-18-00-2"
)

func newPairNode(t *testing.T) *pairNode {
	t.Helper()
	root := t.TempDir()
	for _, path := range []string{
		"pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:1a:00.0/0000:1b:00.0",
		"pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:18:00.0",
		"pci0000:37/0000:37:01.0/0000:43:00.0",
	} {
		writeFunction(t, root, path)
	}
	n := &pairNode{attachNode: newAttachNode(t), sysfs: topology.At(root)}
	n.gpus = newFakeGPUs("gpu-0", "gpu-1")
	for i, thing := range []string{gpu0, gpu1} {
		d := &n.gpus.devices[i]
		slice := map[string]resourceapi.Counter{"memory-slice-0": {Value: resource.MustParse("1")}}
		d.Occupies, d.Place = []string{thing}, &device.Place{PCI: strings.TrimPrefix(thing, "pci-")}
		d.Consumes = []resourceapi.DeviceCounterConsumption{{CounterSet: d.Name, Counters: slice}}
		n.gpus.counters = append(n.gpus.counters, resourceapi.CounterSet{Name: d.Name, Counters: slice})
	}
	n.placed = &placedVFs{fakeVFs: n.vfs, prepared: map[string]types.UID{}}
	for i, thing := range []string{spare, paired} {
		n.placed.devices = append(n.placed.devices, device.Device{
			Name: []string{spareVF, theVF}[i], Kind: device.KindVF, Occupies: []string{thing},
			Place: &device.Place{PCI: strings.TrimPrefix(thing, "pci-"), Parent: "0000:18:00.0", Index: i},
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"type": {StringValue: new(string)}, "rdmaDevice": attribute(fmt.Sprintf("mlx5_%d", i)),
			},
		})
	}
	n.families = []Family{n.gpus, n.placed}
	n.pairs = &pairs.Options{Sysfs: n.sysfs, Pairing: topology.Pairing{Least: topology.NODE}}
	n.attachHook = "/opt/attach-hook"
	return n
}

// writeFunction writes a PCI function of NUMA node 0 into a sysfs.
func writeFunction(t *testing.T, root, path string) {
	t.Helper()
	dir, link := filepath.Join(root, "devices", path), filepath.Join(root, "bus/pci/devices", filepath.Base(path))
	for _, d := range []string{dir, filepath.Dir(link)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join("../../../devices", path), link); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"vendor": "0x10de", "device": "0x2335", "class": "0x030200", "numa_node": "0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func attribute(s string) resourceapi.DeviceAttribute {
	return resourceapi.DeviceAttribute{StringValue: &s}
}

// vf changes a VF, as the next look at the hardware finds it.
func (n *pairNode) vf(name string, change func(*device.Device)) {
	n.placed.mu.Lock()
	defer n.placed.mu.Unlock()
	n.placed.devices = slices.Clone(n.placed.devices)
	for i := range n.placed.devices {
		if n.placed.devices[i].Name == name {
			change(&n.placed.devices[i])
		}
	}
}

func (n *pairNode) look(d *Driver) {
	n.t.Helper()
	if err := d.inventory.refresh(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// holds returns who has which thing.
func holds(t *testing.T, d *Driver) map[string]string {
	t.Helper()
	held, err := d.heldThings()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for thing, h := range held {
		got[thing] = string(h.Claim.UID) + " " + h.Device
	}
	return got
}

func TestAPairIsPreparedAsOneDevice(t *testing.T) {
	n := newPairNode(t)
	d := n.start()
	claim := newClaim("a", []string{"gpu-0-vf"},
		withConfig(resourceapi.AllocationConfigSourceClaim, `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","vlan":7}`, "r0"),
		withConfig(resourceapi.AllocationConfigSourceClaim, `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig"}`, "r0"))
	n.createClaim(claim)
	got := mustPrepare(t, d, claim)
	if len(got) != 1 || got[0].DeviceName != "gpu-0-vf" || got[0].PoolName != testPool {
		t.Fatalf("want one device, which has one metadata file: %+v", got)
	}
	if want := []string{"eks-hybrid-dra/gpu=a-gpu-0-vf", "eks-hybrid-dra/vf=a-gpu-0-vf"}; !cmp.Equal(want, got[0].CDIDeviceIDs) {
		t.Errorf("CDI devices %v, want %v", got[0].CDIDeviceIDs, want)
	}
	for name, want := range map[string]string{"type": "gpu-vf", "alignment": "PXB", "rdmaDevice": "mlx5_1"} {
		if value := got[0].Metadata.Attributes[name].StringValue; value == nil || *value != want {
			t.Errorf("metadata: %s is %v, want %s", name, value, want)
		}
	}
	if diff := cmp.Diff(map[string]string{gpu0: "a gpu-0-vf", paired: "a gpu-0-vf"}, holds(t, d)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	for _, entry := range n.record("a").Devices {
		if entry.Family == "vf" && !strings.Contains(string(entry.Config), `"vlan":7`) {
			t.Errorf("the VF has the configuration %s", entry.Config)
		}
	}
	if hooks := n.hooks("vf", "a"); len(hooks) != 1 {
		t.Errorf("attach hooks: %v", hooks)
	}
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	if at := n.vfs.where("gpu-0-vf"); at != "sandbox-1" {
		t.Errorf("the VF is in sandbox %q", at)
	}

	for _, part := range []string{"gpu-0", theVF} {
		if result := prepare(t, d, newClaim("b", []string{part})); result.Err == nil || !strings.Contains(result.Err.Error(), "still prepared for claim ns/claim-a:a") {
			t.Errorf("%s was given twice: %v", part, result.Err)
		}
	}
	mustPrepare(t, n.start(), claim) // as after a restart
	mustUnprepare(t, d, claim)
	if left := n.files(); len(left) > 0 || len(n.placed.prepared) > 0 || len(n.gpus.ready) > 0 {
		t.Errorf("left: %v, VFs %v, GPUs %v", left, n.placed.prepared, n.gpus.ready)
	}
}

func TestAPairIsPreparedWholeOrNotAtAll(t *testing.T) {
	for name, tc := range map[string]struct {
		fail func(*pairNode)
		want string
	}{
		"the VF fails":  {func(n *pairNode) { n.placed.refuse = errors.New("no such interface") }, `device "gpu-0-vf" (request "r0"): no such interface`},
		"the GPU fails": {func(n *pairNode) { n.gpus.fail["gpu-0-vf"] = errors.New("fell off the bus") }, "fell off the bus"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newPairNode(t)
			d := n.start()
			tc.fail(n)
			if result := prepare(t, d, newClaim("a", []string{"gpu-0-vf"})); result.Err == nil || !strings.Contains(result.Err.Error(), tc.want) {
				t.Errorf("got %v, want %q", result.Err, tc.want)
			}
			if left := n.files(); len(left) > 0 || len(n.placed.prepared) > 0 || len(n.gpus.ready) > 0 {
				t.Errorf("left: %v, VFs %v, GPUs %v", left, n.placed.prepared, n.gpus.ready)
			}
		})
	}
	t.Run("a part is another claim's", func(t *testing.T) {
		n := newPairNode(t)
		d := n.start()
		holder := newClaim("a", []string{theVF})
		n.createClaim(holder)
		mustPrepare(t, d, holder)
		if result := prepare(t, d, newClaim("b", []string{"gpu-0-vf"})); result.Err == nil || !strings.Contains(result.Err.Error(), "still prepared for claim ns/claim-a:a") {
			t.Errorf("got %v", result.Err)
		}
		if diff := cmp.Diff(map[string]string{paired: "a " + theVF}, holds(t, d)); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
	})
	t.Run("there is no such pair", func(t *testing.T) {
		n := newPairNode(t)
		d := n.start()
		// The second GPU's NIC has no VF, and its neighbour's go to the first,
		// but for one.
		n.placed.devices = n.placed.devices[1:]
		n.look(d)
		result := prepare(t, d, newClaim("b", []string{"gpu-1-vf"}))
		if result.Err == nil || !strings.Contains(result.Err.Error(), "gpu-1 has no VF beside it: all that are near enough have as many devices as they can take") {
			t.Errorf("got %v", result.Err)
		}
	})
}

// What the API server is to be told, in short: devices with what they take, and
// taints.
func told(d *Driver, kept features) []string {
	var all []string
	for _, s := range resources(testPool, d.inventory.pool(), kept).Pools[testPool].Slices {
		for _, set := range s.SharedCounters {
			all = append(all, fmt.Sprintf("set %s of %d", set.Name, len(set.Counters)))
		}
		for _, dev := range s.Devices {
			text := dev.Name
			for _, c := range dev.ConsumesCounters {
				text += fmt.Sprintf(" takes %d of %s", len(c.Counters), c.CounterSet)
			}
			for _, taint := range dev.Taints {
				text += " " + taint.Value
			}
			all = append(all, text)
		}
	}
	return all
}

func TestPairsArePublishedWithWhatTheyShare(t *testing.T) {
	n := newPairNode(t)
	n.gpus.devices = n.gpus.devices[:1]
	d := n.start()
	full, plain := features{taints: true, counters: true}, features{}
	check := func(what string, kept features, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, told(d, kept)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("all", full, "set gpu-0 of 2", "gpu-0 takes 1 of gpu-0", "gpu-0-vf takes 2 of gpu-0", spareVF, theVF+" takes 1 of gpu-0")
	check("without counters", plain, "gpu-0", spareVF, theVF)

	n.vf(theVF, func(dev *device.Device) { dev.Problems = []device.Problem{linkDown} })
	n.look(d)
	check("the VF was replaced", full, "set gpu-0 of 2", "gpu-0 takes 1 of gpu-0", "gpu-0-vf takes 2 of gpu-0", theVF+" LinkDown", spareVF+" takes 1 of gpu-0")

	claim := newClaim("a", []string{"gpu-0-vf"})
	mustPrepare(t, d, claim)
	n.vf(spareVF, func(dev *device.Device) { dev.Problems = []device.Problem{linkDown} })
	n.look(d)
	check("what a claim has is not replaced", full, "set gpu-0 of 2", "gpu-0 takes 1 of gpu-0", "gpu-0-vf takes 2 of gpu-0 LinkDown", theVF+" LinkDown", spareVF+" takes 1 of gpu-0 LinkDown")
	check("nor is its other half given away", features{counters: true}, "set gpu-0 of 2")
	check("nor without counters", features{taints: true}, theVF+" LinkDown")

	n.placed.set(func(*fakeVFs) { n.placed.err = errors.New("netlink") })
	n.placed.devices = nil
	n.look(d)
	check("half a pair is kept for its claim", full, "gpu-0 PartHeld")
	mustUnprepare(t, d, claim)
	if !d.inventory.rejoin(t.Context()) {
		t.Error("nothing has changed")
	}
	check("until it is released", full, "gpu-0")
	if d.inventory.rejoin(t.Context()) {
		t.Error("something has changed")
	}
}

// An old control plane gets what it understands, all of it, and the rest as
// soon as it is upgraded.
func TestAPIServersThatDropCounters(t *testing.T) {
	n := newPairNode(t)
	server := serveTaints(n.node)
	server.drops.Store(true)
	server.dropsCounters.Store(true)
	d := startOnSockets(t, n.node)
	published(t, n.node, "gpu-0", "gpu-1", spareVF, theVF)
	expect(t, n.registry, `
# HELP eks_hybrid_dra_withheld_pairs Composite devices that are not published because the API server does not keep counters.
# TYPE eks_hybrid_dra_withheld_pairs gauge
eks_hybrid_dra_withheld_pairs 2
`, "eks_hybrid_dra_withheld_pairs")
	if asked, writes := server.asked.Load(), server.writes.Load(); asked != 1 || writes != 1 {
		t.Errorf("%d questions and %d writes, want one of each", asked, writes)
	}
	server.dropsCounters.Store(false)
	d.counting.mu.Lock()
	d.counting.asked = d.counting.asked.Add(-askEvery)
	d.counting.mu.Unlock()
	d.republish.send()
	published(t, n.node, "gpu-0", "gpu-0-vf", "gpu-1", "gpu-1-vf", spareVF, theVF)
	eventually(t, "ready", func() error { return d.Ready(t.Context()) })

	server.dropsCounters.Store(true) // and replaced by an old one
	n.vf(theVF, func(dev *device.Device) { dev.Attributes = nil })
	n.gpus.set("gpu-1")
	published(t, n.node, "gpu-0", "gpu-1", spareVF, theVF)
}

// An API server that keeps no counters any more is found out although nothing
// changes that would have to be written. One that does not answer is not taken
// for one.
func TestAnAPIServerThatLosesCountersIsFoundOut(t *testing.T) {
	n := newPairNode(t)
	server := serveTaints(n.node)
	d := startOnSockets(t, n.node)
	full := []string{"gpu-0", "gpu-0-vf", "gpu-1", "gpu-1-vf", spareVF, theVF}
	published(t, n.node, full...)
	later := func() {
		t.Helper()
		asked := server.asked.Load()
		d.counting.mu.Lock()
		d.counting.asked = d.counting.asked.Add(-askEvery)
		d.counting.mu.Unlock()
		d.republish.send()
		eventually(t, "asked again", func() error {
			if server.asked.Load() == asked {
				return errors.New("not yet")
			}
			return nil
		})
	}
	later()
	server.away.Store(true)
	server.dropsCounters.Store(true)
	later()
	published(t, n.node, full...)
	server.away.Store(false)
	mustPrepare(t, d, newClaim("a", []string{"gpu-0-vf"}))
	later()
	published(t, n.node, "gpu-1", spareVF) // claim a has the others
	eventually(t, "ready", func() error { return d.Ready(t.Context()) })
	if d.counting.lastKnown() {
		t.Error("the metrics and /readyz take the counters for kept")
	}
	server.dropsCounters.Store(false)
	later()
	published(t, n.node, full...)
}

func TestWhyThereIsAPairCanBeSeen(t *testing.T) {
	n := newPairNode(t)
	d := n.start()
	expect(t, n.registry, `
# HELP eks_hybrid_dra_gpu_vf_pair 1 for each GPU that could have a VF beside it; vf and nic are empty for one that has none, and reason says why.
# TYPE eks_hybrid_dra_gpu_vf_pair gauge
eks_hybrid_dra_gpu_vf_pair{gpu="gpu-0",nic="0000:18:00.0",reason="PXB, with 2 common bridges; shared by 2 devices, there are too few partners",relation="PXB",vf="vf-0000-18-00-2"} 1
eks_hybrid_dra_gpu_vf_pair{gpu="gpu-1",nic="0000:18:00.0",reason="NODE, with 0 common bridges; shared by 2 devices, there are too few partners",relation="NODE",vf="vf-0000-18-00-1"} 1
`, "eks_hybrid_dra_gpu_vf_pair")
	if dev, ok := d.inventory.device("gpu-0-vf"); !ok || dev.owner() != "gpu-vf" {
		t.Errorf("got %v, %v", dev, ok)
	}
}
