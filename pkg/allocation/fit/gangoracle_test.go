package fit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// rooms is how many members each node has room for, found by the allocator that
// is shown everything and is asked for all of them at once.
func (w *world) rooms(claim *resourceapi.ResourceClaim, most int) []int {
	w.Helper()
	e := w.evaluator // for its compiled selectors
	view := w.View()
	var all []int
	for _, n := range view.Nodes() {
		o := offer{node: n}
		for _, p := range n.Pools {
			var managed []int
			for d := range p.Shape.Devices {
				managed = append(managed, d)
			}
			o.devices, o.taken = append(o.devices, managed), append(o.taken, p.Taken)
		}
		room := 0
		for room < most {
			results, err := e.allocate(w.Context(), view, o, slices.Repeat([]*resourceapi.ResourceClaim{claim}, room+1))
			if err != nil {
				w.Fatal(err)
			}
			if results == nil {
				break
			}
			room++
		}
		all = append(all, room)
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// fewest is the least number of nodes for so many members, or 0.
func fewest(rooms []int, members int) int {
	for i, room := range rooms {
		if members -= room; members <= 0 {
			return i + 1
		}
	}
	return 0
}

// TestGangsOfEqualsAreExact compares with all that the allocator can do: a way is
// found if there is one, and on as few nodes as can be.
func TestGangsOfEqualsAreExact(t *testing.T) {
	pcieRoot := resourceapi.FullyQualifiedName("resource.kubernetes.io/pcieRoot")
	numaNode := resourceapi.FullyQualifiedName("resource.kubernetes.io/numaNode")
	pair := fleettest.Claim("it", fleettest.Request("gpu", fleettest.ClassGPU, 1), fleettest.Request("vf", fleettest.ClassVF, 1))
	beside := pair.DeepCopy()
	beside.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &pcieRoot}}
	near := fleettest.Claim("it", gpus(2))
	near.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &numaNode}}
	spread := fleettest.Claim("it", fleettest.Request("vf", fleettest.ClassVF, 2))
	spread.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{DistinctAttribute: &pcieRoot}}
	either := fleettest.Claim("it", fleettest.FirstOf("r", fleettest.Request("both", fleettest.ClassGPUVF, 1), fleettest.Request("one", fleettest.ClassGPU, 1)))
	mixed := fleettest.Claim("it", fleettest.Request("vf", fleettest.ClassVF, 1), fleettest.Request("both", fleettest.ClassGPUVF, 1))
	for name, claim := range map[string]*resourceapi.ResourceClaim{
		"1 GPU": fleettest.Claim("it", gpus(1)), "2 GPUs": fleettest.Claim("it", gpus(2)), "3 GPUs": fleettest.Claim("it", gpus(3)),
		"composite": fleettest.Claim("it", fleettest.Request("r", fleettest.ClassGPUVF, 1)), "3 VFs": fleettest.Claim("it", fleettest.Request("r", fleettest.ClassVF, 3)),
		"GPU and VF": pair, "GPU beside VF": beside, "2 GPUs on one NUMA node": near, "VFs of different NICs": spread,
		"composite or GPU": either, "VF and composite": mixed,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				random := rand.New(rand.NewPCG(seed, 7))
				w := newWorld(t, small("a"), small("b"), small("c"))
				for range random.IntN(14) {
					node, gpu := []string{"a", "b", "c"}[random.IntN(3)], random.IntN(4)
					device := []string{fmt.Sprintf("gpu-%d", gpu), fmt.Sprintf("gpu-%d-vf", gpu), fmt.Sprintf("vf-%d-%d", gpu, random.IntN(2))}[random.IntN(3)]
					if n := w.View().Node(node).Pools[0]; n.Free.Has(at(n.Shape.Place(device))) {
						w.use(node, device)
					}
				}
				rooms := w.rooms(claim, 10)
				for n := 1; n <= 10; n++ {
					w.checkGang(claim, n, fewest(rooms, n))
				}
			}
		})
	}
}

func at(n int, _ bool) int { return n }

func (w *world) checkGang(claim *resourceapi.ResourceClaim, n, wantNodes int) {
	w.Helper()
	var claims []*resourceapi.ResourceClaim
	for i := range n {
		c := claim.DeepCopy()
		c.Name = fmt.Sprint("member-", i)
		c.UID = fleettest.Claim(c.Name).UID
		claims = append(claims, c)
	}
	choices, err := w.Gang(w.Context(), Ask{Claims: claims})
	if err != nil {
		if wantNodes > 0 || !errors.Is(err, ErrNoFit) {
			w.Errorf("%d members could be on %d nodes: %v", n, wantNodes, err)
		}
		return
	}
	nodes := map[string]bool{}
	for i, c := range choices {
		nodes[c.Node] = true
		if err := w.Assume(claims[i].UID, &c.Allocation); err != nil {
			w.Error(err)
		}
	}
	// An alternative that is preferred comes before few nodes.
	if len(nodes) != wantNodes && len(claim.Spec.Devices.Requests[0].FirstAvailable) == 0 {
		w.Errorf("%d members are on %d nodes, could be on %d", n, len(nodes), wantNodes)
	}
	for _, c := range claims {
		w.Forget(c.UID)
	}
}
