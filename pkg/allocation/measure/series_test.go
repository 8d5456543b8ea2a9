package measure

import (
	"fmt"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// series returns how many series each metric has, as Prometheus counts them: a
// histogram has one for each bucket, its sum and its count.
func (s *setup) series(t *testing.T) map[string]int {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n[f.GetName()]++
			if h := m.GetHistogram(); h != nil {
				n[f.GetName()] += len(h.GetBucket()) + 2 // +Inf is no bucket here
			}
		}
	}
	return n
}

// Whatever claims, classes and machines there are, there are as many series as
// docs/monitoring.md says, and no more.
func TestHowManySeriesThereAre(t *testing.T) {
	s := newSetup(t)
	// The classes: some of each kind and both allocators, beside those of the setup.
	names := []string{"gpu", "managed-gpu"}
	kinds := append(device.Kinds(), "made-up")
	for i := range 20 {
		kind, managed := kinds[i%len(kinds)], []string{"", "true"}[i/len(kinds)%2]
		name := fmt.Sprintf("class-%d", i)
		s.fleet.SetClass(class(name, fmt.Sprintf("device.driver == 'eks-hybrid-dra' && device.attributes['eks-hybrid-dra'].type == '%s'", kind), managed))
		names = append(names, name)
	}
	ours := len(names)
	names = append(names, "nic")
	for i := range 50 {
		names = append(names, fmt.Sprintf("made-up-by-a-user-%d", i))
	}
	// The machines: each has devices of all kinds, and of some that nobody knows.
	const nodes = 30
	for i := range nodes {
		node := fmt.Sprintf("dgx-%d", i)
		addMachine(s.fleet, node)
		s.fleet.SetSlice(sliceOfKinds(node, slices.Concat(kinds, []device.Kind{"", device.Kind(fmt.Sprintf("of node %d", i))})))
	}
	// Each pair of classes is asked for, allocated, fails and waits.
	reasons := append(Reasons(), "made up by a programmer", "and one more")
	for i, first := range names {
		for j, second := range names {
			c := s.claim(fmt.Sprintf("c-%d-%d", i, j), first)
			more := c.Spec.Devices.Requests[0].DeepCopy()
			more.Name, more.Exactly.DeviceClassName = "more", second
			c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, *more)
			s.Claim(nil, c)
			s.Claim(c, s.allocated(c, "gpu-0"))
			for _, reason := range reasons {
				s.Failed(c, reason)
			}
			waits := c.DeepCopy()
			waits.UID = types.UID("waits-" + c.Name)
			s.Claim(nil, waits)
		}
	}
	ofClaims := 2 * ours // of a class's own kind, and of claims that ask for others besides
	got := s.series(t)
	for name, want := range map[string]int{
		"dra_resource_utilization_ratio":  nodes * (len(device.Kinds()) + 1),
		"dra_pending_claims_total":        ofClaims,
		"dra_allocation_duration_seconds": 19 * (ofClaims + 1),
		"dra_allocation_errors_total":     13 * (ofClaims + 1),
	} {
		if got := got[name]; got > want || got < want*8/10 {
			t.Errorf("%s has %d series, docs/monitoring.md says %d at most", name, got, want)
		}
	}
	for _, name := range names[:ours] {
		s.fleet.DeleteClass(name)
		s.ClassGone(name)
	}
	if got := s.series(t); got["dra_pending_claims_total"] != 0 || got["dra_allocation_duration_seconds"] != 19 || got["dra_allocation_errors_total"] != 13 {
		t.Errorf("without classes there are more series than of %q: %v", ClassOther, got)
	}
}

// sliceOfKinds has a device of each kind.
func sliceOfKinds(node string, kinds []device.Kind) *resourceapi.ResourceSlice {
	s := &resourceapi.ResourceSlice{}
	s.Name = node + "-kinds"
	s.Spec = resourceapi.ResourceSliceSpec{
		Driver: driver, NodeName: &node, Pool: resourceapi.ResourcePool{Name: node + "/kinds", Generation: 1, ResourceSliceCount: 1},
	}
	for i, kind := range kinds {
		d := resourceapi.Device{Name: fmt.Sprintf("device-%d", i)}
		if kind != "" {
			d.Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"type": {StringValue: ptr.To(string(kind))}}
		}
		s.Spec.Devices = append(s.Spec.Devices, d)
	}
	return s
}
