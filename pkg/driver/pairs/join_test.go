package pairs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

var (
	gpuBuses = []string{"1b", "43", "52", "61", "9d", "c3", "d1", "df"}
	nicBuses = []string{"18", "40", "4f", "5e", "9a", "c0", "ce", "dc"}
	// storage is a NIC that is beside no GPU.
	storage = "29"
)

func dgx(t *testing.T) *Options {
	t.Helper()
	root := t.TempDir()
	if err := simulated.New(simulated.DGXH200, "node").WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	return &Options{Sysfs: topology.At(root), Pairing: topology.Pairing{Least: topology.NODE}}
}

// board returns the same GPUs and NICs on a board that is written faster: each
// GPU has its NIC below one root port, four of each are on a NUMA node.
func board(t *testing.T) *Options {
	t.Helper()
	root := t.TempDir()
	for i := range gpuBuses {
		bridges := fmt.Sprintf("pci0000:%[1]s/0000:%[1]s:01.0/0000:%[1]s:02.0", nicBuses[i])
		function(t, root, bridges+"/0000:00:0"+fmt.Sprint(i)+".0/0000:01:0"+fmt.Sprint(i)+".0/0000:"+gpuBuses[i]+":00.0", i/4)
		function(t, root, bridges+"/0000:"+nicBuses[i]+":00.0", i/4)
	}
	function(t, root, "pci0000:"+storage+"/0000:"+storage+":00.0", 0)
	return &Options{Sysfs: topology.At(root), Pairing: topology.Pairing{Least: topology.NODE}}
}

// function writes a PCI function into a sysfs.
func function(t *testing.T, root, path string, numa int) {
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
	for name, content := range map[string]string{"vendor": "0x10de", "device": "0x2335", "class": "0x030200", "numa_node": fmt.Sprint(numa)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func text(s string) resourceapi.DeviceAttribute {
	return resourceapi.DeviceAttribute{StringValue: &s}
}

func one() resourceapi.Counter { return resourceapi.Counter{Value: resource.MustParse("1")} }

func two() resourceapi.Counter { return resourceapi.Counter{Value: resource.MustParse("2")} }

func gpu(index int) device.Device {
	name, address := fmt.Sprintf("gpu-%d", index), "0000:"+gpuBuses[index]+":00.0"
	return device.Device{
		Name: name, Kind: device.KindGPU, Occupies: []string{"pci-" + address}, Place: &device.Place{PCI: address},
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": text("gpu"), "productName": text("H200"), "index": {IntValue: ptr.To(int64(index))},
			"resource.kubernetes.io/pciBusID": text(address), "resource.kubernetes.io/pcieRoot": text("pci0000:15"),
		},
		Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("141Gi")}},
		Consumes: []resourceapi.DeviceCounterConsumption{{CounterSet: name, Counters: map[string]resourceapi.Counter{"memory-slice-0": one()}}},
	}
}

func vfName(bus string, index int) string { return fmt.Sprintf("vf-0000-%s-00-%d", bus, index+1) }

func vf(bus string, index int) device.Device {
	address := fmt.Sprintf("0000:%s:00.%d", bus, index+1)
	return device.Device{
		Name: vfName(bus, index), Kind: device.KindVF, Occupies: []string{"pci-" + address},
		Place: &device.Place{PCI: address, Parent: "0000:" + bus + ":00.0", Index: index},
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": text("vf"), "pfName": text("nic" + bus), "vfIndex": {IntValue: ptr.To(int64(index))}, "rdmaDevice": text("mlx5_0"),
			"resource.kubernetes.io/pciBusID": text(address), "resource.kubernetes.io/pcieRoot": text("pci0000:15"),
			"resource.kubernetes.io/numaNode": {IntValue: ptr.To[int64](0)},
		},
	}
}

// find returns the machine with so many GPUs, and so many VFs of each compute
// NIC.
func find(gpus, vfs int) Found {
	var f Found
	for i := range gpus {
		f.Devices = append(f.Devices, gpu(i))
		f.Counters = append(f.Counters, resourceapi.CounterSet{Name: gpu(i).Name, Counters: gpu(i).Consumes[0].Counters})
	}
	for _, bus := range nicBuses {
		for i := range vfs {
			f.Devices = append(f.Devices, vf(bus, i))
		}
	}
	return f
}

// with gives a device problems.
func (f Found) with(name string, reasons ...string) Found {
	f.Devices = slices.Clone(f.Devices)
	for n := range f.Devices {
		if f.Devices[n].Name != name {
			continue
		}
		for _, reason := range reasons {
			f.Devices[n].Problems = append(f.Devices[n].Problems, device.Problem{Reason: reason, Message: "seen on " + name})
		}
	}
	return f
}

// without leaves a device out.
func (f Found) without(name string) Found {
	f.Devices = slices.DeleteFunc(slices.Clone(f.Devices), func(d device.Device) bool { return d.Name == name })
	return f
}

// held says that a claim has a device, whose parts are these.
func (f Found) held(claim, name string, parts ...device.Device) Found {
	held := map[string]Holder{}
	for thing, holder := range f.Held {
		held[thing] = holder
	}
	for _, part := range parts {
		held[part.Occupies[0]] = Holder{Claim: device.Claim{Namespace: "ns", Name: claim, UID: "uid"}, Device: name}
	}
	f.Held = held
	return f
}

func (f Found) after(j Joined) Found {
	f.Before = j.Pairs
	return f
}

func names(j Joined) string {
	var all []string
	for _, d := range j.Devices {
		all = append(all, d.Name)
	}
	return strings.Join(all, " ")
}

func named(t *testing.T, j Joined, name string) Device {
	t.Helper()
	n := slices.IndexFunc(j.Devices, func(d Device) bool { return d.Name == name })
	if n < 0 {
		t.Fatalf("no device %s in %s", name, names(j))
	}
	return j.Devices[n]
}

// vfOf returns the VF that the first GPU is joined with.
func vfOf(t *testing.T, j Joined) string {
	t.Helper()
	return named(t, j, "gpu-0-vf").Parts[1]
}

func TestADGXHasEightPairs(t *testing.T) {
	o := dgx(t)
	j := o.Join(find(8, 2))
	var want []string
	for i := range 8 {
		want = append(want, fmt.Sprintf("gpu-%d", i), fmt.Sprintf("gpu-%d-vf", i))
	}
	for _, bus := range nicBuses {
		want = append(want, vfName(bus, 0))
	}
	for _, bus := range nicBuses {
		want = append(want, vfName(bus, 1))
	}
	if diff := cmp.Diff(strings.Join(want, " "), names(j)); diff != "" {
		t.Errorf("a pair stands behind its GPU, and VFs of no pair come first (-want +got):\n%s", diff)
	}
	for i, p := range j.Pairs {
		if p.VF != vfName(nicBuses[i], 1) || p.Relation != topology.PXB || !strings.Contains(p.String(), "PXB, with ") {
			t.Errorf("GPU %d: %+v: %s", i, p, p)
		}
	}
	want0 := Device{
		Device: device.Device{
			Name: "gpu-0-vf", Kind: device.KindGPUVF, Occupies: []string{"pci-0000:1b:00.0", "pci-0000:18:00.2"},
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"type": text("gpu-vf"), "productName": text("H200"), "index": {IntValue: ptr.To[int64](0)}, "alignment": text("PXB"),
				"pfName": text("nic18"), "vfIndex": {IntValue: ptr.To[int64](1)}, "rdmaDevice": text("mlx5_0"), "vfPCIBusID": text("0000:18:00.2"),
				"resource.kubernetes.io/pciBusID": text("0000:1b:00.0"), "resource.kubernetes.io/pcieRoot": text("pci0000:15"),
			},
			Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("141Gi")}},
			Consumes: []resourceapi.DeviceCounterConsumption{{CounterSet: "gpu-0", Counters: map[string]resourceapi.Counter{"memory-slice-0": two(), "vf": two()}}},
		},
		Parts: []string{"gpu-0", vfName("18", 1)},
	}
	if diff := cmp.Diff(want0, named(t, j, "gpu-0-vf")); diff != "" {
		t.Errorf("composite (-want +got):\n%s", diff)
	}
	if len(j.Counters) != 8 {
		t.Errorf("%d counter sets, want 8", len(j.Counters))
	}
	wantSet := resourceapi.CounterSet{Name: "gpu-3", Counters: map[string]resourceapi.Counter{"memory-slice-0": two(), "vf": two()}}
	if diff := cmp.Diff(wantSet, j.Counters[3]); diff != "" {
		t.Errorf("counter set (-want +got):\n%s", diff)
	}
	wantVF := []resourceapi.DeviceCounterConsumption{{CounterSet: "gpu-3", Counters: map[string]resourceapi.Counter{"vf": one()}}}
	if diff := cmp.Diff(wantVF, named(t, j, vfName("5e", 1)).Consumes); diff != "" {
		t.Errorf("the paired VF takes the VF of its GPU's set only (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(gpu(3).Consumes, named(t, j, "gpu-3").Consumes); diff != "" {
		t.Errorf("the GPU takes half, so that it fits twice for admin access (-want +got):\n%s", diff)
	}
	if c := named(t, j, vfName("5e", 0)).Consumes; len(c) > 0 {
		t.Errorf("a VF of no pair takes %v", c)
	}
}

func TestCountersAreThereForWhatIsShared(t *testing.T) {
	o := board(t)
	for name, tc := range map[string]struct {
		found Found
		sets  int
		why   string
	}{
		"GPUs alone":                  {find(8, 0), 0, ""},
		"VFs alone":                   {find(0, 2), 0, ""},
		"one GPU whose NIC has no VF": {find(1, 0).join(vf(storage, 0)), 1, ""},
		"a GPU too far from any NIC":  {find(5, 0).join(vf("18", 0)), 1, "gpu-4 has no VF beside it: the nearest is SYS, and NODE is the least that counts"},
	} {
		t.Run(name, func(t *testing.T) {
			j := o.Join(tc.found)
			if len(j.Counters) != tc.sets {
				t.Errorf("counter sets %v, want %d", j.Counters, tc.sets)
			}
			sets := map[string]bool{}
			for _, set := range j.Counters {
				sets[set.Name] = true
			}
			for _, d := range j.Devices {
				for _, c := range d.Consumes {
					if !sets[c.CounterSet] {
						t.Errorf("%s takes from %s, which is not there", d.Name, c.CounterSet)
					}
				}
			}
			var why []string
			for _, p := range j.Pairs {
				why = append(why, p.String())
			}
			if all := strings.Join(why, "\n"); !strings.Contains(all, tc.why) {
				t.Errorf("want %q, got:\n%s", tc.why, all)
			}
		})
	}
}

// Of what families share out among their own devices, whatever they are, one can
// be looked at with admin access while somebody has it, and none is given twice.
func TestCountersOfOtherKinds(t *testing.T) {
	counters := func(amount string, names ...string) map[string]resourceapi.Counter {
		all := map[string]resourceapi.Counter{}
		for _, name := range names {
			all[name] = resourceapi.Counter{Value: resource.MustParse(amount)}
		}
		return all
	}
	disk := func(name string, takes map[string]resourceapi.Counter) device.Device {
		return device.Device{Name: name, Kind: "disk", Occupies: []string{"disk"}, Consumes: []resourceapi.DeviceCounterConsumption{{CounterSet: "disk-0", Counters: takes}}}
	}
	for name, tc := range map[string]struct {
		// all is what there is; whole takes all of it, and parts some.
		all                              map[string]resourceapi.Counter
		part                             map[string]resourceapi.Counter
		wantAll, wantWhole, wantEachPart map[string]resourceapi.Counter
	}{
		"places": {
			counters("1", "place-0", "place-1"), counters("1", "place-1"),
			counters("2", "place-0", "place-1"), counters("1", "place-0", "place-1"), counters("2", "place-1"),
		},
		"space": {
			counters("10", "space"), counters("4", "space"),
			counters("20", "space"), counters("20", "space"), counters("8", "space"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := (*Options)(nil).Join(Found{
				Devices:  []device.Device{disk("whole", tc.all), disk("part-0", tc.part), disk("part-1", tc.part)},
				Counters: []resourceapi.CounterSet{{Name: "disk-0", Counters: tc.all}},
			})
			got := []map[string]resourceapi.Counter{j.Counters[0].Counters}
			for _, d := range j.Devices {
				got = append(got, d.Consumes[0].Counters)
			}
			want := []map[string]resourceapi.Counter{tc.wantAll, tc.wantWhole, tc.wantEachPart, tc.wantEachPart}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the set, and what each takes (-want +got):\n%s", diff)
			}
		})
	}
}

func (f Found) join(devices ...device.Device) Found {
	f.Devices = slices.Concat(f.Devices, devices)
	return f
}

func TestWhichVFIsPaired(t *testing.T) {
	o := board(t)
	last, former := vf("18", 3), vf("18", 2)
	all := find(1, 4)
	replaced := o.Join(all.with(last.Name, "LinkDown").after(o.Join(all)))
	for name, tc := range map[string]struct {
		found Found
		want  string
		why   string
	}{
		"the last":                               {all, last.Name, ""},
		"the last that is healthy":               {all.with(last.Name, "LinkDown"), former.Name, ""},
		"another than one that got a problem":    {all.with(last.Name, "LinkDown").after(o.Join(all)), former.Name, ""},
		"that of before, when both are healthy":  {all.after(replaced), former.Name, ""},
		"whoever uses it":                        {all.held("a", last.Name, last), last.Name, ""},
		"one with a problem that a claim has":    {all.with(last.Name, "LinkDown").held("a", last.Name, last).after(o.Join(all)), last.Name, ""},
		"none that a claim has for a sick one":   {all.with(last.Name, "LinkDown").held("a", former.Name, former).after(o.Join(all)), vfName("18", 1), ""},
		"that of a claim that has the composite": {all.held("a", "gpu-0-vf", gpu(0), former).after(o.Join(all)), former.Name, "PXB, with "},
		"also when it got a problem":             {all.held("a", "gpu-0-vf", gpu(0), former).with(former.Name, "LinkDown"), former.Name, "PXB, with "},
		"of another NIC that a claim still has":  {all.held("a", "gpu-0-vf", gpu(0), vf("40", 0)), vfName("40", 0), "NODE, for as long as a claim has both"},
		"a sick one where all are": {
			find(1, 2).with(vfName("18", 0), "LinkDown").with(vfName("18", 1), "LinkDown"), vfName("18", 1), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := o.Join(tc.found)
			if got := vfOf(t, j); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if !strings.Contains(j.Pairs[0].Why, tc.why) {
				t.Errorf("why: %q, want %q", j.Pairs[0].Why, tc.why)
			}
			if got := named(t, j, "gpu-0-vf").Held; got != (tc.why != "") {
				t.Errorf("held: %v", got)
			}
		})
	}
}

func TestWhatAPersonHasDecided(t *testing.T) {
	address := func(s string) topology.Address {
		a, err := topology.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	o := board(t)
	o.Pairing.Fixed = map[topology.Address]topology.Address{
		address("0000:1b:00.0"): {}, address("0000:43:00.0"): address("0000:18:00.0"), address("0000:52:00.0"): address("0000:18:00.0"),
		address("0000:9d:00.0"): address("0000:" + storage + ":00.0"),                 // a NIC without VFs
		address("0000:c3:00.0"): {}, address("0000:1c:00.0"): address("0000:18:00.0"), // no such GPU
	}
	j := o.Join(find(5, 1))
	var got []string
	for _, p := range j.Pairs {
		got = append(got, p.String())
	}
	want := []string{
		"gpu-0 has no VF beside it: left alone by the configuration",
		"gpu-1 and vf-0000-18-00-1 of NIC 0000:18:00.0: decided by the configuration; they are NODE; shared by 2 devices, there are too few partners",
		"gpu-2 has no VF beside it: no VF is left of the NIC beside it",
		"gpu-3 and vf-0000-5e-00-1 of NIC 0000:5e:00.0: PXB, with 2 common bridges",
		"gpu-4 has no VF beside it: the configuration decided for 0000:29:00.0, which is no PF with VFs that are served; such are 0000:18:00.0, 0000:40:00.0, 0000:4f:00.0, 0000:5e:00.0, 0000:9a:00.0, 0000:c0:00.0, 0000:ce:00.0, 0000:dc:00.0",
		"0000:1c:00.0 has no VF beside it: the configuration names it, and no GPU that is served has that address",
		"0000:c3:00.0 has no VF beside it: the configuration names it, and no GPU that is served has that address",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if first := strings.Join(strings.Fields(names(j))[:5], " "); first != "gpu-0 gpu-2 gpu-4 gpu-1 gpu-1-vf" {
		t.Errorf("GPUs that are in no pair come first, got %s", first)
	}
}

func TestAProblemOfAPartIsOneOfThePair(t *testing.T) {
	j := board(t).Join(find(1, 1).with("gpu-0", "XID").with(vfName("18", 0), "LinkDown"))
	want := []device.Problem{{Reason: "XID", Message: "seen on gpu-0"}, {Reason: "LinkDown", Message: "seen on vf-0000-18-00-1"}}
	if diff := cmp.Diff(want, named(t, j, "gpu-0-vf").Problems); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A claim has a pair of which one half is gone: nobody gets the other.
func TestWhatIsLeftOfAPairIsNotGivenAway(t *testing.T) {
	o := board(t)
	one := find(1, 0).join(vf("18", 0))
	both := one.held("a", "gpu-0-vf", gpu(0), vf("18", 0))
	for name, tc := range map[string]struct {
		found Found
		want  string
	}{
		"the VF is gone":  {both.without(vfName("18", 0)), "gpu-0"},
		"the GPU is gone": {both.without("gpu-0"), vfName("18", 0)},
		"nothing is gone": {both, ""},
		"held singly":     {one.held("a", "gpu-0", gpu(0)).held("b", vfName("18", 0), vf("18", 0)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range o.Join(tc.found).Devices {
				switch {
				case d.Name != tc.want && len(d.Problems) > 0:
					t.Errorf("%s has %v", d.Name, d.Problems)
				case d.Name == tc.want && (len(d.Problems) != 1 || !strings.Contains(d.Problems[0].Message, "claim ns/a:uid has it as a part of gpu-0-vf")):
					t.Errorf("%s has %v", d.Name, d.Problems)
				}
			}
		})
	}
}

func TestAPairHasNotTooManyAttributes(t *testing.T) {
	rich := vf("18", 0)
	for i := range 40 {
		rich.Attributes[resourceapi.QualifiedName(fmt.Sprintf("zz%02d", i))] = text("x")
	}
	j := board(t).Join(find(1, 0).join(rich))
	d := named(t, j, "gpu-0-vf")
	if n := len(d.Attributes) + len(d.Capacity); n != 31 || d.Attributes["productName"].StringValue == nil {
		t.Errorf("%d attributes and capacities, want 31 with all of the GPU's: %v", n, d.Attributes)
	}
}
