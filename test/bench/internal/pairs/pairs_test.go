package pairs

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// slicesOfDGX returns slices as the driver publishes them, but for what the
// scheduler does not look at. There are two VFs beside each GPU.
func slicesOfDGX() []resourceapi.ResourceSlice {
	one := func(set string, counters ...string) []resourceapi.DeviceCounterConsumption {
		c := resourceapi.DeviceCounterConsumption{CounterSet: set, Counters: map[string]resourceapi.Counter{}}
		for _, name := range counters {
			c.Counters[name] = resourceapi.Counter{Value: resource.MustParse("1")}
		}
		return []resourceapi.DeviceCounterConsumption{c}
	}
	dev := func(name, kind string, root int, consumes []resourceapi.DeviceCounterConsumption) resourceapi.Device {
		return resourceapi.Device{Name: name, ConsumesCounters: consumes, Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": {StringValue: &kind}, rootAttribute: {StringValue: ptr.To(fmt.Sprintf("pci0000:%02x", root))},
		}}
	}
	all := make([]resourceapi.ResourceSlice, 3)
	for i := range all {
		all[i].Name = fmt.Sprintf("0000%d-eks-hybrid-dra-dgx-0-x", i)
		all[i].Spec = resourceapi.ResourceSliceSpec{
			Driver: harness.DriverName, NodeName: ptr.To("dgx-0"),
			Pool: resourceapi.ResourcePool{Name: "dgx-0/eks-hybrid-dra", Generation: 2, ResourceSliceCount: 3},
		}
	}
	singles, rest := &all[1].Spec.Devices, &all[2].Spec.Devices
	for i := range gpus {
		set := fmt.Sprintf("gpu-%d", i)
		all[0].Spec.SharedCounters = append(all[0].Spec.SharedCounters, resourceapi.CounterSet{Name: set, Counters: one(set, "gpu", "vf")[0].Counters})
		*singles = append(*singles, dev(set, published.TypeGPU, i, one(set, "gpu")), dev(fmt.Sprintf("vf-%d-0", i), published.TypeVF, i, nil))
		*rest = append(*rest, dev(set+"-vf", published.TypePair, i, one(set, "gpu", "vf")), dev(fmt.Sprintf("vf-%d-1", i), published.TypeVF, i, one(set, "vf")))
	}
	return all
}

func newSuite(t *testing.T) *Suite {
	t.Helper()
	m, err := published.New(slicesOfDGX())
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	for name, kind := range map[string]string{gpuClass: published.TypeGPU, vfClass: published.TypeVF, pairClass: published.TypePair} {
		class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{
			{CEL: &resourceapi.CELDeviceSelector{Expression: "device.attributes['eks-hybrid-dra'].type == '" + kind + "'"}},
		}}}
		if _, err := client.ResourceV1().DeviceClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := newLibrary(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return &Suite{machine: &machine{m}, library: l, Size: Size{Searches: 2, GiveUps: 1}}
}

func TestOnlyAWholeMachineIsMeasured(t *testing.T) {
	for want, change := range map[string]func([]resourceapi.ResourceSlice) []resourceapi.ResourceSlice{
		"":                  func(s []resourceapi.ResourceSlice) []resourceapi.ResourceSlice { return s },
		"there is no slice": func([]resourceapi.ResourceSlice) []resourceapi.ResourceSlice { return nil },
		"is one of 3":       func(s []resourceapi.ResourceSlice) []resourceapi.ResourceSlice { return s[:2] },
		"in generation 1": func(s []resourceapi.ResourceSlice) []resourceapi.ResourceSlice {
			s[1].Spec.Pool.Generation = 1
			return s
		},
		"there are 7 devices of type gpu-vf": func(s []resourceapi.ResourceSlice) []resourceapi.ResourceSlice {
			s[2].Spec.Devices = s[2].Spec.Devices[1:]
			return s
		},
		"gpu-0 has the taint sick": func(s []resourceapi.ResourceSlice) []resourceapi.ResourceSlice {
			s[1].Spec.Devices[0].Taints = []resourceapi.DeviceTaint{{Key: "sick"}}
			return s
		},
	} {
		if _, err := published.New(change(slicesOfDGX())); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestAnotherNodeOfTheSameKind(t *testing.T) {
	m := newSuite(t).machine
	for i, slice := range m.As("other") {
		if want := fmt.Sprintf("0000%d-eks-hybrid-dra-other-x", i); slice.Name != want || *slice.Spec.NodeName != "other" || slice.Spec.Pool.Name != "other/eks-hybrid-dra" {
			t.Errorf("slice %s of node %s and pool %s", slice.Name, *slice.Spec.NodeName, slice.Spec.Pool.Name)
		}
		if diff := cmp.Diff(m.Slices[i].Spec.Devices, slice.Spec.Devices); diff != "" {
			t.Errorf("devices (-want +got):\n%s", diff)
		}
	}
	if *m.Slices[0].Spec.NodeName != "dgx-0" {
		t.Error("the machine itself was changed")
	}
	if got, want := m.String(), "Each node publishes 8 GPUs, 16 VFs, 8 composites, and 16 counters in 8 sets, in 3 slices."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFormsOfClaims(t *testing.T) {
	for want, claim := range map[string]resourceapi.DeviceClaim{
		"gpu-0 gpu-1 vf-0 vf-1; gpu-0 vf-0, gpu-1 vf-1": constrained(2),
		"gpu-0 vf-0 gpu-1 vf-1; gpu-0 vf-0, gpu-1 vf-1": inTurn(2),
		"devices; ": some(pairClass, 2),
	} {
		var requests, constraints []string
		for _, r := range claim.Requests {
			requests = append(requests, r.Name)
		}
		for _, c := range claim.Constraints {
			constraints = append(constraints, strings.Join(c.Requests, " "))
		}
		if got := strings.Join(requests, " ") + "; " + strings.Join(constraints, ", "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheAllocatorIsAskedAndGivesUp(t *testing.T) {
	s := newSuite(t)
	s.library.timeout = 50 * time.Millisecond
	// Two VFs of each NIC are too few to keep the allocator busy for long.
	if err := s.oneNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Composite8Fits, Composite8Unsat, Composite4Gone, Constraints8Fits} {
		if got := len(s.report.Samples[name][figures.Ours]); got != s.Size.Searches {
			t.Errorf("%s has %d samples, want %d", name, got, s.Size.Searches)
		}
	}
	if got := s.report.Samples[Constraints8Unsat][figures.Ours]; len(got) != 1 || got[0] < 50 {
		t.Errorf("after giving up once, %s has the samples %v", Constraints8Unsat, got)
	}
	if notes := strings.Join(s.report.Notes, "\n"); !strings.Contains(notes, "`constraints_8_unsat`: the allocator gave up 1 of 1 times, after the 0.05 s") {
		t.Errorf("notes: %s", notes)
	}
}

func TestAWrongAnswerIsAnError(t *testing.T) {
	s := newSuite(t)
	at := s.machine.situation([]string{"dgx-0"}, sets.New[structured.DeviceID]())
	err := s.ask(t.Context(), 1, question{"q", at, some(pairClass, gpus), 0})
	if err == nil || !strings.Contains(err.Error(), "finds what is asked for on 1 nodes, and it is on 0") {
		t.Errorf("got %v", err)
	}
	if err := s.ask(t.Context(), 1, question{"q", at, some("other", 1), 0}); err == nil || !strings.Contains(err.Error(), "no device class other") {
		t.Errorf("got %v", err)
	}
}

func TestOneNodeOfManyHasEight(t *testing.T) {
	s := newSuite(t)
	for _, lacking := range []int{1, gpus} {
		at := s.machine.busy(5, lacking)
		if len(at.nodes) != 5 || len(at.slices) != 15 || len(at.taken) != 4*lacking {
			t.Errorf("%d nodes, %d slices, %d devices taken", len(at.nodes), len(at.slices), len(at.taken))
		}
		for _, class := range []string{gpuClass, pairClass} {
			for count, want := range map[int64]int{8: 1, int64(8 - lacking): 5} {
				got, err := s.library.ask(t.Context(), at, some(class, max(count, 1)))
				if count == 0 {
					want = 1
				}
				if err != nil || got.nodes != want || got.undecided > 0 || got.took <= 0 {
					t.Errorf("%d of %s with %d lacking: %+v, %v; want %d nodes", count, class, lacking, got, err, want)
				}
			}
		}
	}
}

func TestPodsWithANodeAreCountedOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := fake.NewClientset()
	p, err := watchPlaced(ctx, client, "ns")
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}}
	for _, node := range []string{"", "n", "n"} {
		pod.Spec.NodeName = node
		if _, err := client.CoreV1().Pods("ns").Update(ctx, pod, metav1.UpdateOptions{}); err == nil {
			continue
		}
		if _, err := client.CoreV1().Pods("ns").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.await(ctx, 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.await(ctx, 2); err == nil || !strings.Contains(err.Error(), "1 of 2 pods have a node") {
		t.Errorf("got %v", err)
	}
}

func TestEachClaimHasADeviceOfItsOwn(t *testing.T) {
	claim := func(name string, devices ...string) resourceapi.ResourceClaim {
		c := resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
		c.Status.Allocation = &resourceapi.AllocationResult{}
		for _, d := range devices {
			c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{Pool: "p", Device: d})
		}
		return c
	}
	for want, claims := range map[string][]resourceapi.ResourceClaim{
		"":                              {claim("a", "gpu-0"), claim("b", "gpu-1")},
		"there are 1 claims":            {claim("a", "gpu-0")},
		"claim b of a pod that has":     {claim("a", "gpu-0"), claim("b")},
		"given to the claims a and b":   {claim("a", "gpu-0"), claim("b", "gpu-0")},
		"was not given one device of c": {claim("a", "gpu-0"), {}},
	} {
		err := distinct(claims, 2, work{class: "c"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestFigures(t *testing.T) {
	s := &Suite{}
	for name, value := range map[string]float64{
		Composite8Fits: 1, Composite8Unsat: 7, Composite4Gone: 8, Constraints8Fits: 50, Constraints8Unsat: 10000, Constraints4Gone: 70,
		InTurn8Fits: 50, InTurn8Unsat: 10000, InTurn4Gone: 5, GPU500: 100, Composite500: 200, GPU500Split: 100, Composite500Split: 201,
		SchedulerGPU: 50, SchedulerComposite: 40,
	} {
		s.report.Keep(name, figures.Ours, figures.Samples{value})
	}
	s.compute()
	unmet := map[string]string{}
	for _, row := range s.report.Rows {
		for _, demand := range row.Demands {
			if !demand.Met {
				unmet[row.Name] = demand.Text
			}
		}
	}
	if diff := cmp.Diff(map[string]string{Composite4Gone: "≤ 7 ms", Composite500Split: "≤ 2 × gpu_500_nodes_7_free"}, unmet); diff != "" {
		t.Errorf("demands that are not met (-want +got):\n%s", diff)
	}
	if len(s.report.Rows) != 15 {
		t.Errorf("%d figures, want 15", len(s.report.Rows))
	}
}
