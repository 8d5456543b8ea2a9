package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func newFleet(machines ...fleettest.Machine) *fleet.Fleet {
	f := fleet.New(fleettest.Driver)
	for _, c := range fleettest.Classes() {
		f.SetClass(c)
	}
	for _, m := range machines {
		f.SetNode(m.Object(nil))
		for _, s := range m.Slices() {
			f.SetSlice(s)
		}
	}
	return f
}

// pool returns the only pool of a node, or nil.
func pool(t *testing.T, f *fleet.Fleet, node string) *fleet.Pool {
	t.Helper()
	n := f.View().Node(node)
	if n == nil || len(n.Pools) == 0 {
		return nil
	}
	if len(n.Pools) > 1 {
		t.Fatalf("node %s has %d pools", node, len(n.Pools))
	}
	return n.Pools[0]
}

// names are the devices of a set.
func names(p *fleet.Pool, set fleet.Set) []string {
	all := []string{}
	for n := range set.All() {
		all = append(all, p.Shape.Devices[n].Name)
	}
	return all
}

// free are the free devices but for VFs.
func free(p *fleet.Pool) string {
	return strings.Join(slices.DeleteFunc(names(p, p.Free), func(name string) bool { return strings.HasPrefix(name, "vf") }), " ")
}

func two(node string) fleettest.Machine {
	return fleettest.Machine{Node: node, GPUs: 2, VFs: 2, Managed: true}
}

func TestWhatAMachineHas(t *testing.T) {
	m := two("a")
	m.Sick = []string{"vf-0-0"}
	p := pool(t, newFleet(m), "a")
	if p == nil {
		t.Fatal("no pool")
	}
	got := map[string]fleet.Device{}
	for _, d := range p.Shape.Devices {
		got[d.Name] = d
	}
	for name, want := range map[string]fleet.Device{
		"gpu-0":    {Kind: device.KindGPU, NUMA: 0, Root: "pci0000:15", Managed: true},
		"gpu-1-vf": {Kind: device.KindGPUVF, NUMA: 1, Root: "pci0000:1d", Managed: true, Alignment: "PIX"},
		"vf-1-0":   {Kind: device.KindVF, NUMA: 1, Root: "pci0000:1d", Managed: true},
		"vf-0-0": {Kind: device.KindVF, Root: "pci0000:15", Managed: true, Taints: []resourceapi.DeviceTaint{
			{Key: v1alpha1.TaintUnhealthy, Value: "LinkDown", Effect: resourceapi.DeviceTaintEffectNoSchedule},
		}},
	} {
		d := got[name]
		d.Uses, want.Name = nil, name
		if diff := cmp.Diff(want, d, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".api" }, cmp.Ignore())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if len(p.Shape.Counters) != 20 || len(got["gpu-0-vf"].Uses) != 10 || len(got["vf-0-1"].Uses) != 1 || len(got["vf-0-0"].Uses) != 0 {
		t.Errorf("%d counters, of which a composite takes %d, a paired VF %d and another %d",
			len(p.Shape.Counters), len(got["gpu-0-vf"].Uses), len(got["vf-0-1"].Uses), len(got["vf-0-0"].Uses))
	}
	place, _ := p.Shape.Place("gpu-1")
	d := p.Device(place)
	if len(d.Taints) != 0 || *d.Attributes["uuid"].StringValue != "GPU-a-1" || *d.Attributes["brand"].StringValue != "Nvidia" {
		t.Errorf("device for the allocator: %v", d)
	}
	if _, has := p.Shape.Common(place).Attributes["uuid"]; has {
		t.Error("the UUID is common to machines")
	}
}

func TestMachinesThatAreAlikeShareTheirShape(t *testing.T) {
	sick := two("c")
	sick.Sick = []string{"gpu-0"}
	f := newFleet(two("a"), two("b"), sick)
	a, b, c := pool(t, f, "a"), pool(t, f, "b"), pool(t, f, "c")
	if a.Shape != b.Shape || a.Key() != b.Key() {
		t.Error("equal machines have different shapes")
	}
	if a.Shape == c.Shape {
		t.Error("a machine with an unhealthy device has the shape of a healthy one")
	}
	f.SetClaim(fleettest.Allocated(fleettest.Claim("x"), two("b"), "gpu-0"))
	if b = pool(t, f, "b"); a.Shape != b.Shape || a.Key() == b.Key() {
		t.Error("what is taken is not in the key")
	}
}

func TestPoolsThatCannotBeUsed(t *testing.T) {
	f := newFleet()
	m := two("a")
	f.SetNode(m.Object(nil))
	old := m.Slices()
	for i, s := range old {
		if pool(t, f, "a") != nil {
			t.Errorf("a pool of %d slices of %d", i, len(old))
		}
		f.SetSlice(s)
	}
	if pool(t, f, "a") == nil {
		t.Fatal("the pool is complete")
	}
	m.Generation = 2
	next := m.Slices()
	f.SetSlice(next[0])
	if n := f.View().Node("a"); len(n.Pools) != 0 || !slices.Equal(n.Unusable, []string{"a/eks-hybrid-dra: its slices are being updated"}) {
		t.Errorf("a slice of a new generation is there, and %v and %v", n.Pools, n.Unusable)
	}
	f.SetSlice(next[1])
	if p := pool(t, f, "a"); p == nil {
		t.Error("the new generation is complete")
	}
	for _, s := range old {
		f.DeleteSlice(s.Name)
	}
	if p := pool(t, f, "a"); p == nil {
		t.Error("the old generation went, and with it the new one")
	}

	twice := next[1].DeepCopy()
	twice.ResourceVersion = "2"
	twice.Spec.Devices = append(twice.Spec.Devices, twice.Spec.Devices[0])
	f.SetSlice(twice)
	if n := f.View().Node("a"); len(n.Pools) != 0 || len(n.Unusable) != 1 || !strings.Contains(n.Unusable[0], "device gpu-0 is there twice") {
		t.Errorf("a device twice: %v", n.Unusable)
	}
	lacking := next[0].DeepCopy()
	lacking.ResourceVersion, lacking.Spec.SharedCounters = "2", lacking.Spec.SharedCounters[:1]
	f.SetSlice(next[1])
	twice = next[1].DeepCopy()
	twice.ResourceVersion = "3"
	f.SetSlice(twice)
	f.SetSlice(lacking)
	if n := f.View().Node("a"); len(n.Unusable) != 1 || !strings.Contains(n.Unusable[0], "of set gpu-1, which is not there") {
		t.Errorf("a counter set is missing: %v", n.Unusable)
	}
}

func TestSlicesOfOthersAreNotKept(t *testing.T) {
	f := newFleet(two("a"))
	for _, s := range two("b").Slices() {
		s.Spec.Driver = "gpu.example.com"
		f.SetSlice(s)
	}
	for _, s := range two("c").Slices() {
		s.Spec.NodeName, s.Spec.AllNodes = nil, ptr.To(true)
		f.SetSlice(s)
	}
	f.SetNode(two("b").Object(nil))
	if p := pool(t, f, "b"); p != nil {
		t.Error("another driver's pool is kept")
	}
	moved := two("a").Slices()
	for _, s := range moved {
		s.Spec.Driver, s.ResourceVersion = "gpu.example.com", "2"
		f.SetSlice(s)
	}
	if p := pool(t, f, "a"); p != nil {
		t.Error("slices that changed to another driver are kept")
	}
}

func TestNodesComeAndGo(t *testing.T) {
	f := newFleet(two("b"), two("a"))
	text := func() string {
		var all []string
		for _, n := range f.View().Nodes() {
			all = append(all, fmt.Sprintf("%s:%d:%s:%v", n.Name, len(n.Pools), n.Object.Labels["zone"], n.Object.Spec.Unschedulable))
		}
		return strings.Join(all, " ")
	}
	if got := text(); got != "a:1::false b:1::false" {
		t.Error(got)
	}
	before := f.View()
	f.SetNode(two("a").Object(nil))
	if f.View() != before {
		t.Error("news of no change change the view")
	}
	f.SetNode(two("a").Object(map[string]string{"zone": "x"}))
	f.DeleteNode("b")
	other := &corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true}}
	other.Name = "0"
	f.SetNode(other)
	if got := text(); got != "0:0::true a:1:x:false" {
		t.Error(got)
	}
	if n := before.Node("b"); n == nil || before.Node("0") != nil {
		t.Error("an old view has changed")
	}
	f.SetNode(two("b").Object(nil))
	if got := text(); got != "0:0::true a:1:x:false b:1::false" {
		t.Errorf("slices that came before their node: %s", got)
	}
}

func TestWhoseClaimItIs(t *testing.T) {
	f := newFleet()
	managed := func(name string) resourceapi.DeviceRequest { return fleettest.Request(name, fleettest.ClassGPU, 1) }
	plain := func(name string) resourceapi.DeviceRequest {
		return fleettest.Request(name, "gpu."+fleettest.Driver, 1)
	}
	for name, tc := range map[string]struct {
		requests []resourceapi.DeviceRequest
		ours     bool
		mixed    string
	}{
		"none":               {nil, false, ""},
		"managed":            {[]resourceapi.DeviceRequest{managed("a"), managed("b")}, true, ""},
		"plain":              {[]resourceapi.DeviceRequest{plain("a")}, false, ""},
		"unknown class":      {[]resourceapi.DeviceRequest{fleettest.Request("a", "nobody", 1)}, false, ""},
		"both":               {[]resourceapi.DeviceRequest{managed("a"), plain("b")}, false, "b"},
		"both alternatives":  {[]resourceapi.DeviceRequest{fleettest.FirstOf("a", managed("x"), managed("y"))}, true, ""},
		"an alternative":     {[]resourceapi.DeviceRequest{fleettest.FirstOf("a", managed("x"), plain("y"))}, false, "a/y"},
		"plain alternatives": {[]resourceapi.DeviceRequest{fleettest.FirstOf("a", plain("x"), plain("y"))}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ours, mixed := f.IsOurs(fleettest.Claim("c", tc.requests...))
			if ours != tc.ours || mixed != tc.mixed {
				t.Errorf("got %v, %q", ours, mixed)
			}
		})
	}
	f.DeleteClass(fleettest.ClassGPU)
	if ours, _ := f.IsOurs(fleettest.Claim("c", managed("a"))); ours || f.ManagedClass(fleettest.ClassGPU) {
		t.Error("the class is gone")
	}
	if _, err := f.View().Get(fleettest.ClassGPU); err == nil || err.Error() != `there is no DeviceClass "managed-gpu.eks-hybrid-dra"` {
		t.Error(err)
	}
	if all, err := f.View().List(); err != nil || len(all) != 5 {
		t.Errorf("%d classes, %v", len(all), err)
	}
}

func TestDevicesThatChangeHands(t *testing.T) {
	m := two("a")
	m.Managed = false
	f := newFleet(m)
	managed := func() int {
		n := 0
		for _, d := range pool(t, f, "a").Shape.Devices {
			if d.Managed {
				n++
			}
		}
		return n
	}
	if managed() != 0 {
		t.Error("devices without attribute and taint are managed")
	}
	version := 1
	change := func(edit func(*resourceapi.Device)) {
		version++
		base := two("a")
		for _, s := range base.Slices() {
			s.ResourceVersion = fmt.Sprint(version)
			for i := range s.Spec.Devices {
				edit(&s.Spec.Devices[i])
			}
			f.SetSlice(s)
		}
	}
	change(func(d *resourceapi.Device) {
		delete(d.Attributes, device.AttributeAllocator)
		d.Taints[0].Value = v1alpha1.ManagedSettling
	})
	if managed() != 0 {
		t.Error("devices that settle are given out")
	}
	if d := pool(t, f, "a").Shape.Devices[0]; len(d.Taints) != 1 {
		t.Errorf("the taint of what settles is gone: %v", d.Taints)
	}
	change(func(d *resourceapi.Device) { d.Taints[0].Value = v1alpha1.ManagedSettling })
	if managed() != 0 {
		t.Error("the taint says otherwise than the attribute, and the attribute wins")
	}
	change(func(*resourceapi.Device) {})
	if managed() != 8 {
		t.Errorf("%d devices are managed", managed())
	}
}

func TestUsage(t *testing.T) {
	m := two("a")
	m.Sick = []string{"vf-1-0"}
	f := newFleet(m)
	f.SetClaim(fleettest.Allocated(fleettest.Claim("x"), m, "gpu-0-vf", "vf-1-1"))
	want := []fleet.Usage{
		{Kind: device.KindGPU, Managed: true, Total: 2, Free: 1},
		{Kind: device.KindVF, Managed: true, Total: 4, Taken: 1, Free: 2, Unhealthy: 1},
		{Kind: device.KindGPUVF, Managed: true, Total: 2, Taken: 1},
	}
	if diff := cmp.Diff(want, f.View().Node("a").Usage()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestManyTellAtOnce is for the race detector.
func TestManyTellAtOnce(t *testing.T) {
	f := newFleet()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			m := two(fmt.Sprint("node-", i))
			f.SetNode(m.Object(nil))
			for round := range 20 {
				m.Generation = int64(round)
				before := m.Slices()
				for _, s := range before {
					f.SetSlice(s)
				}
				c := fleettest.Allocated(fleettest.Claim(fmt.Sprint("claim-", i)), m, "gpu-0")
				if err := f.Assume(c.UID, c.Status.Allocation); err != nil {
					t.Error(err)
				}
				f.SetClaim(c)
				for _, n := range f.View().Nodes() {
					n.Usage()
					n.Key()
				}
				f.DeleteClaim(c.UID)
				for _, s := range before {
					f.DeleteSlice(s.Name)
				}
			}
		})
	}
	group.Wait()
	for _, n := range f.View().Nodes() {
		if len(n.Pools) != 0 {
			t.Errorf("node %s has pools", n.Name)
		}
	}
}
