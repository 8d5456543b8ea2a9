package fit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// canBePlaced tries every way to spread the claims over the nodes.
func (w *world) canBePlaced(claims []*resourceapi.ResourceClaim) bool {
	w.Helper()
	e := w.evaluator
	view := w.View()
	var offers []offer
	for _, n := range view.Nodes() {
		o := offer{node: n}
		for _, p := range n.Pools {
			var managed []int
			for d := range p.Shape.Devices {
				managed = append(managed, d)
			}
			o.devices, o.taken = append(o.devices, managed), append(o.taken, p.Taken)
		}
		offers = append(offers, o)
	}
	known := map[string]bool{}
	fits := func(node int, some []*resourceapi.ResourceClaim) bool {
		key := fmt.Sprint(node)
		for _, c := range some {
			key += "/" + c.Name
		}
		yes, ok := known[key]
		if !ok {
			results, err := e.allocate(w.Context(), view, offers[node], some)
			if err != nil {
				w.Fatal(err)
			}
			yes = len(some) == 0 || results != nil
			known[key] = yes
		}
		return yes
	}
	ways := 1
	for range claims {
		ways *= len(offers)
	}
	for way := range ways {
		parts := make([][]*resourceapi.ResourceClaim, len(offers))
		for _, c := range claims {
			parts[way%len(offers)] = append(parts[way%len(offers)], c)
			way /= len(offers)
		}
		ok := true
		for node := range offers {
			ok = ok && fits(node, parts[node])
		}
		if ok {
			return true
		}
	}
	return false
}

// TestMixedGangs compares gangs of members that differ with all ways there are.
// It need not find every way, but what it finds must be right, and it must not
// miss many.
func TestMixedGangs(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	requests := []func(int64) resourceapi.DeviceRequest{gpus, gpus, vfs, pairs}
	possible, missed := 0, 0
	for n := range 80 {
		w := newWorld(t, small("a"), small("b"), small("c"))
		for range random.IntN(6) {
			node, gpu := []string{"a", "b", "c"}[random.IntN(3)], random.IntN(4)
			device := []string{fmt.Sprintf("gpu-%d", gpu), fmt.Sprintf("gpu-%d-vf", gpu), fmt.Sprintf("vf-%d-%d", gpu, random.IntN(2))}[random.IntN(3)]
			if p := w.View().Node(node).Pools[0]; p.Free.Has(at(p.Shape.Place(device))) {
				w.use(node, device)
			}
		}
		var claims []*resourceapi.ResourceClaim
		for i := range 2 + random.IntN(4) {
			claims = append(claims, fleettest.Claim(fmt.Sprint("member-", i), requests[random.IntN(4)](int64(1+random.IntN(4)))))
		}
		can := w.canBePlaced(claims)
		if can {
			possible++
		}
		choices, err := w.Gang(t.Context(), Ask{Claims: claims})
		switch {
		case err == nil && !can:
			t.Errorf("gang %d: there is no way", n)
		case err != nil && !errors.Is(err, ErrNoFit):
			t.Errorf("gang %d: %v", n, err)
		case err != nil && can:
			missed++
		}
		for i, c := range choices {
			if err := w.Assume(claims[i].UID, &c.Allocation); err != nil {
				t.Errorf("gang %d: %v", n, err)
			}
		}
	}
	t.Logf("%d of 80 gangs can be placed, %d of them were not", possible, missed)
	if missed > possible/20 {
		t.Errorf("missed %d of %d", missed, possible)
	}
}
