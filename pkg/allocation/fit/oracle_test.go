package fit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// firstThatFits is what kube-scheduler would do: the first node, in the order of
// names, on which the allocator finds something among all managed devices.
func (w *world) firstThatFits(claims ...*resourceapi.ResourceClaim) (string, []resourceapi.AllocationResult) {
	w.Helper()
	e := w.evaluator // for its compiled selectors
	view := w.View()
	for _, n := range view.Nodes() {
		o := offer{node: n}
		for _, p := range n.Pools {
			var managed []int
			for d := range p.Shape.Devices {
				if p.Shape.Devices[d].Managed {
					managed = append(managed, d)
				}
			}
			o.devices, o.taken = append(o.devices, managed), append(o.taken, p.Taken)
		}
		results, err := e.allocate(w.Context(), view, o, claims)
		if err != nil {
			w.Logf("first fit on %s: %v", n.Name, err)
		}
		if results != nil {
			return n.Name, results
		}
	}
	return "", nil
}

// small machines have two GPUs with three VFs each, one on each NUMA node.
func small(node string) fleettest.Machine {
	return fleettest.Machine{Node: node, GPUs: 4, VFs: 2, Managed: true}
}

type dice struct{ *rand.Rand }

func (d dice) request(name string) resourceapi.DeviceRequest {
	class := []string{fleettest.ClassGPU, fleettest.ClassVF, fleettest.ClassGPUVF}[d.IntN(3)]
	var expressions []string
	switch d.IntN(8) {
	case 0:
		expressions = append(expressions, `device.attributes["resource.kubernetes.io"].numaNode == 1`)
	case 1:
		expressions = append(expressions, `device.attributes["eks-hybrid-dra"].?index.orValue(0) % 2 == 0`)
	case 2:
		expressions = append(expressions, `device.attributes["eks-hybrid-dra"].?uuid.orValue("-1").endsWith("1")`)
	}
	if d.IntN(12) == 0 {
		return fleettest.All(name, class, expressions...)
	}
	r := fleettest.Request(name, class, int64(1+d.IntN(3)), expressions...)
	if d.IntN(12) == 0 {
		r.Exactly.AdminAccess = ptr.To(true)
	}
	if d.IntN(8) == 0 {
		r.Exactly.Tolerations = []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists}}
	}
	return r
}

func (d dice) claim(n int) *resourceapi.ResourceClaim {
	c := fleettest.Claim(fmt.Sprint("claim-", n))
	for i := range 1 + d.IntN(3) {
		name := fmt.Sprint("r", i)
		if d.IntN(5) == 0 {
			c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, fleettest.FirstOf(name, withoutAdmin(d.request("a")), withoutAdmin(d.request("b"))))
		} else {
			c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, d.request(name))
		}
	}
	attribute := []resourceapi.FullyQualifiedName{"resource.kubernetes.io/pcieRoot", "resource.kubernetes.io/numaNode", "eks-hybrid-dra/uuid", "eks-hybrid-dra/type"}[d.IntN(4)]
	switch d.IntN(6) {
	case 0:
		c.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &attribute}}
	case 1:
		c.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{DistinctAttribute: &attribute}}
	case 2:
		c.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &attribute, Requests: []string{"r0"}}}
	}
	return c
}

func withoutAdmin(r resourceapi.DeviceRequest) resourceapi.DeviceRequest {
	r.Exactly.AdminAccess = nil
	return r
}

// TestNeverMissesWhatFits compares with the allocator that is shown everything,
// while claims of all sorts come and go.
func TestNeverMissesWhatFits(t *testing.T) {
	for seed := range uint64(8) {
		d := dice{rand.New(rand.NewPCG(seed, 1))}
		sick := small("b")
		sick.Sick = []string{"gpu-1", "gpu-1-vf", "vf-2-0"}
		other := small("d")
		other.Managed = false
		w := newWorld(t, small("a"), sick, small("c"), other)
		var there []*resourceapi.ResourceClaim
		for n := range 60 {
			c := d.claim(n)
			choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
			node, _ := w.firstThatFits(c)
			if (err == nil) != (node != "") {
				t.Fatalf("seed %d, claim %d: first fit finds node %q, we say %v\n%+v", seed, n, node, err, c.Spec.Devices)
			}
			if err != nil && !errors.Is(err, ErrNoFit) {
				t.Logf("seed %d, claim %d: %v", seed, n, err)
			}
			if err == nil {
				if err := w.Assume(c.UID, &choice.Allocation); err != nil {
					t.Fatalf("seed %d, claim %d: %v", seed, n, err)
				}
				there = append(there, c)
			}
			for len(there) > 0 && d.IntN(3) == 0 {
				at := d.IntN(len(there))
				w.Forget(there[at].UID)
				there = append(there[:at], there[at+1:]...)
			}
		}
	}
}
