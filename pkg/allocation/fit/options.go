package fit

import (
	"cmp"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// option is one thing to show to the allocator.
type option struct {
	// order are the devices of the board in the order in which they are to be
	// tried. Nil stands for all, see [inOrder].
	order []int
	// sure tells that devices and score say what the allocator will take.
	// Otherwise nobody knows before it is asked.
	sure    bool
	devices [][]int
	score   score
	// refused tells that the allocator has said no. It will say so again.
	refused bool
}

// options returns what to show to the allocator of a state, the best first. The
// last shows everything, unless it is certain that nothing fits: then there are
// none.
func options(v *variant, s *suits, now *state) []option {
	if v.picks == nil {
		return []option{{}}
	}
	o, ok := newOptioner(v, s, now)
	if !ok {
		return nil
	}
	if v.isWhole() {
		return []option{o.make(o.prefer(o.candidates))}
	}
	var found []option
	for _, numas := range o.numaSets() {
		found = append(found, o.within(numas)...)
	}
	slices.SortStableFunc(found, func(a, b option) int { return a.score.compare(b.score) })
	return append(found, option{})
}

// newOptioner finds out what can be given at all. It returns false if that is
// certainly not enough.
func newOptioner(v *variant, s *suits, now *state) (*optioner, bool) {
	usable := make([]fleet.Set, len(v.requests))
	candidates := fleet.MakeSet(len(now.devices))
	for i := range v.requests {
		usable[i] = s.usable(v, i, now)
		candidates.Union(usable[i])
	}
	if !possible(v, usable, s, candidates) {
		return nil, false
	}
	o := &optioner{guess: &guess{v: v, suits: s, usable: usable, state: now}, candidates: candidates}
	o.harm = now.harms(candidates)
	return o, true
}

// inOrder returns all devices that the allocator may be shown, those first that
// it should take. Who asks for all is also shown what others have, to learn that
// it is missing.
func inOrder(v *variant, s *suits, now *state) []int {
	o, ok := newOptioner(v, s, now)
	if v.picks == nil || !ok {
		return slices.Collect(now.managed.All())
	}
	order := o.prefer(o.candidates)
	if !v.isWhole() {
		return order
	}
	shown := fleet.MakeSet(len(now.devices))
	for _, d := range order {
		shown.Add(d)
	}
	for _, match := range s.match {
		for d := range match.Without(shown).All() {
			shown.Add(d)
			order = append(order, d)
		}
	}
	return order
}

// harms returns what others lose besides, for each device that could be given.
func (s *state) harms(candidates fleet.Set) []int {
	harms := make([]int, len(s.devices))
	for d := range candidates.All() {
		if len(s.uses[d]) == 0 || !s.free.Has(d) {
			continue
		}
		left := slices.Clone(s.left)
		s.take(left, d)
		// What shares something is in the same spot.
		for _, other := range s.spots[s.spot[d]].devices {
			if other != d && s.free.Has(other) && s.managed.Has(other) && !s.fits(left, other) {
				harms[d] += weight(s.devices[other])
			}
		}
	}
	return harms
}

type optioner struct {
	*guess
	candidates fleet.Set
	harm       []int
}

// make guesses what the allocator will take of the devices in this order. The
// option shows it no others, unless it must see all.
func (o *optioner) make(order []int) option {
	devices, ok := o.run(order)
	if !ok {
		return option{}
	}
	made := option{sure: true, devices: devices, score: o.state.rate(o.v, o.usable, devices)}
	if !o.v.isWhole() {
		made.order = slices.Concat(devices...)
	}
	return made
}

// numaSets returns the sets of NUMA nodes that are worth a try: each alone, then
// more and more of them, those with the least to spare first.
func (o *optioner) numaSets() [][]int {
	var order []int
	for n := range o.state.numas {
		if o.state.numas[n].Shared(o.candidates) > 0 {
			order = append(order, n)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(o.state.numas[a].Shared(o.candidates), o.state.numas[b].Shared(o.candidates))
	})
	var sets [][]int
	for _, n := range order {
		sets = append(sets, []int{n})
	}
	for size := 2; size <= len(order); size++ {
		for start := 0; start+size <= len(order); start++ {
			sets = append(sets, order[start:start+size])
		}
	}
	return sets
}

// within returns the best options on some NUMA nodes: one spot that has it all,
// or else as few as can be.
func (o *optioner) within(numas []int) []option {
	var found []option
	for _, spots := range o.spotOrders(numas) {
		if best := o.fewest(spots); best.sure {
			found = append(found, best)
		}
	}
	return found
}

// fewest returns the option with the fewest of the spots: any single one, or the
// first of them.
func (o *optioner) fewest(spots []int) option {
	for size := 1; size <= len(spots); size++ {
		for start := 0; start+size <= len(spots); start++ {
			if size > 1 && start > 0 {
				break // spots come in the order of their merit
			}
			from := fleet.MakeSet(len(o.state.devices))
			for _, n := range spots[start : start+size] {
				for _, d := range o.state.spots[n].devices {
					from.Add(d)
				}
			}
			if from = from.And(o.candidates); !possible(o.v, o.usable, o.suits, from) {
				continue
			}
			if best := o.make(o.prefer(from)); best.sure {
				return best
			}
		}
	}
	return option{}
}

// merit is how good a spot is; less is better.
type merit struct{ spot, lacking, misfit, numa, harm, left int }

// spotOrders returns the spots on the NUMA nodes in the orders in which they may
// be used: the nearest first, then one NUMA node after the other, then those
// where others lose least. In one order those come first that have something for
// every request.
func (o *optioner) spotOrders(numas []int) [][]int {
	var all []merit
	for n, spot := range o.state.spots {
		at := slices.Index(numas, spot.numa)
		if at < 0 {
			continue
		}
		m := merit{spot: n, numa: at, misfit: -1, harm: -1}
		for i := range o.v.requests {
			m.lacking++
			if slices.ContainsFunc(spot.devices, o.usable[i].Has) {
				m.lacking--
			}
		}
		for _, d := range spot.devices {
			if !o.candidates.Has(d) {
				continue
			}
			m.left++
			if m.misfit < 0 || o.state.misfit[d] < m.misfit {
				m.misfit = o.state.misfit[d]
			}
			if m.harm < 0 || o.harm[d] < m.harm {
				m.harm = o.harm[d]
			}
		}
		if m.left > 0 {
			all = append(all, m)
		}
	}
	byMerit := func(a, b merit) int {
		return cmp.Or(cmp.Compare(a.misfit, b.misfit), cmp.Compare(a.numa, b.numa), cmp.Compare(a.harm, b.harm), cmp.Compare(a.left, b.left))
	}
	slices.SortStableFunc(all, byMerit)
	orders := [][]int{spotsOf(all)}
	slices.SortStableFunc(all, func(a, b merit) int { return cmp.Compare(a.lacking, b.lacking) })
	if completeFirst := spotsOf(all); !slices.Equal(completeFirst, orders[0]) {
		orders = append(orders, completeFirst)
	}
	return orders
}

func spotsOf(all []merit) []int {
	order := make([]int, len(all))
	for i, m := range all {
		order[i] = m.spot
	}
	return order
}

// prefer orders devices: the nearest first, then those where others lose least,
// then in turn one of each spot.
func (o *optioner) prefer(from fleet.Set) []int {
	type merit struct{ device, misfit, harm, turn, numaLeft int }
	turns := map[[2]int]int{}
	var all []merit
	for d := range from.All() {
		m := merit{device: d, misfit: o.state.misfit[d], harm: o.harm[d], numaLeft: o.state.numas[o.state.numa[d]].Shared(from)}
		turn := [2]int{o.state.spot[d], o.harm[d]}
		m.turn = turns[turn]
		turns[turn]++
		all = append(all, m)
	}
	slices.SortStableFunc(all, func(a, b merit) int {
		return cmp.Or(cmp.Compare(a.misfit, b.misfit), cmp.Compare(a.harm, b.harm), cmp.Compare(a.turn, b.turn),
			cmp.Compare(a.numaLeft, b.numaLeft))
	})
	order := make([]int, len(all))
	for i, m := range all {
		order[i] = m.device
	}
	return order
}
