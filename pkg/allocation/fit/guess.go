package fit

import (
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// guess is what the allocator will probably give when it is shown devices in an
// order: for each request the first that can be had. It is how choices are
// compared; the allocator then decides.
type guess struct {
	v      *variant
	suits  *suits
	usable []fleet.Set
	state  *state

	left    []int64
	chosen  fleet.Set
	devices [][]int
}

// run returns the devices of each request, or false if the first that come do
// not work out.
func (g *guess) run(order []int) ([][]int, bool) {
	g.left = slices.Clone(g.state.left)
	g.chosen = fleet.MakeSet(len(g.state.devices))
	g.devices = make([][]int, len(g.v.requests))
	for i := range g.v.requests {
		r := &g.v.requests[i]
		want, from := r.count, order
		if r.all {
			want, from = g.suits.match[i].Len(), slices.Collect(g.suits.match[i].All())
		}
		for _, d := range from {
			if len(g.devices[i]) == want {
				break
			}
			if g.usable[i].Has(d) && g.can(i, d) {
				g.take(i, d)
			}
		}
		if len(g.devices[i]) < want {
			return nil, false
		}
	}
	return g.devices, true
}

func (g *guess) can(request, d int) bool {
	if g.v.requests[request].admin {
		return !slices.Contains(g.devices[request], d) && g.meets(request, d)
	}
	return !g.chosen.Has(d) && g.state.fits(g.left, d) && g.meets(request, d)
}

func (g *guess) take(request, d int) {
	g.devices[request] = append(g.devices[request], d)
	if !g.v.requests[request].admin {
		g.chosen.Add(d)
		g.state.take(g.left, d)
	}
}

// meets tells whether the device goes with what the constraints make of those
// that are chosen.
func (g *guess) meets(request, d int) bool {
	for i := range g.v.constraints {
		c := &g.v.constraints[i]
		if !c.applies[request] {
			continue
		}
		value := g.suits.values[i][d]
		if value < 0 {
			return false
		}
		for other := 0; other <= request; other++ {
			if !c.applies[other] {
				continue
			}
			for _, e := range g.devices[other] {
				if same := g.suits.values[i][e] == value; same == c.distinct {
					return false
				}
			}
		}
	}
	return true
}
