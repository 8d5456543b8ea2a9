package fit

import (
	"cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// score says how good a choice is; less is better, and the first field that
// differs decides.
type score struct {
	// misfit sums how far the parts of composites are apart.
	misfit int
	// spread sums, over the claims, the NUMA nodes that each is on.
	spread int
	// numas and spots are those that the claims are on together.
	numas, spots int
	// opened is 1 for a machine of which nothing is taken yet, and openedNUMA
	// counts such NUMA nodes: others may need them whole.
	opened, openedNUMA int
	// harm is what others lose besides what is given, such as the pair of a GPU.
	harm int
	// besides counts what is then still free of the kind on the same NUMA nodes,
	// and rest that on the machine. Full places are better than half full ones.
	besides, rest int
}

func (s score) compare(o score) int {
	return cmp.Or(
		cmp.Compare(s.misfit, o.misfit), cmp.Compare(s.spread, o.spread),
		cmp.Compare(s.numas, o.numas), cmp.Compare(s.spots, o.spots),
		cmp.Compare(s.opened, o.opened), cmp.Compare(s.openedNUMA, o.openedNUMA),
		cmp.Compare(s.harm, o.harm), cmp.Compare(s.besides, o.besides), cmp.Compare(s.rest, o.rest),
	)
}

// Losing a whole GPU is worse than losing any number of VFs of one NIC.
const harmOfGPU, harmOfOther = 1000, 1

func weight(d *fleet.Device) int {
	if d.Kind == device.KindGPU || d.Kind == device.KindGPUVF {
		return harmOfGPU
	}
	return harmOfOther
}

// rate compares what is chosen with what there was.
func (s *state) rate(v *variant, usable []fleet.Set, devices [][]int) score {
	var out score
	chosen, numas, spots := fleet.MakeSet(len(s.devices)), fleet.MakeSet(len(s.numas)), fleet.MakeSet(len(s.spots))
	wanted := fleet.MakeSet(len(s.devices))
	var ofClaim fleet.Set
	claim := -1
	left := append([]int64(nil), s.left...)
	for i, some := range devices {
		if v.requests[i].claim != claim {
			out.spread += ofClaim.Len()
			claim, ofClaim = v.requests[i].claim, fleet.MakeSet(len(s.numas))
		}
		if usable != nil {
			wanted.Union(usable[i])
		}
		for _, d := range some {
			out.misfit += s.misfit[d]
			numas.Add(s.numa[d])
			spots.Add(s.spot[d])
			ofClaim.Add(s.numa[d])
			if !v.requests[i].admin && !chosen.Has(d) {
				chosen.Add(d)
				s.take(left, d)
			}
		}
	}
	out.spread += ofClaim.Len()
	out.numas, out.spots = numas.Len(), spots.Len()
	if s.taken.Len() == 0 {
		out.opened = 1
	}
	for n := range numas.All() {
		if s.numas[n].Shared(s.taken) == 0 {
			out.openedNUMA++
		}
	}
	for d := range s.free.Without(chosen).All() {
		still := s.fits(left, d)
		switch {
		case !still && s.managed.Has(d):
			out.harm += weight(s.devices[d])
		case still && wanted.Has(d):
			out.rest++
			if numas.Has(s.numa[d]) {
				out.besides++
			}
		}
	}
	return out
}

// plus sums two scores, of different machines.
func (s score) plus(o score) score {
	return score{
		misfit: s.misfit + o.misfit, spread: s.spread + o.spread, numas: s.numas + o.numas, spots: s.spots + o.spots,
		opened: s.opened + o.opened, openedNUMA: s.openedNUMA + o.openedNUMA, harm: s.harm + o.harm,
		besides: s.besides + o.besides, rest: s.rest + o.rest,
	}
}
