package fit

import (
	"fmt"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// report is what a search has seen, for people.
type report struct {
	// all are the nodes of the cluster, allowed those with devices of ours that
	// may be used, fitting those of them where something can be done.
	all, allowed, fitting int
	lacking               map[lack]int
	failed                error
	// broken is what was wrong with a device, because of which it suits nobody.
	broken error
}

// start begins to count anew, for the next alternative.
func (r *report) start(allowed int) {
	r.allowed, r.fitting, r.lacking = allowed, 0, map[lack]int{}
}

func (r *report) add(why lack, nodes int) { r.lacking[why] += nodes }

// note keeps the first error of the allocator: it is about the claim.
func (r *report) note(err error) {
	if r.failed == nil {
		r.failed = err
	}
}

// noteBroken keeps the first error of a selector on a device.
func (r *report) noteBroken(err error) {
	if r.broken == nil {
		r.broken = err
	}
}

func (r *report) brokenText() string {
	if r.broken == nil {
		return ""
	}
	return "; a selector fails on some devices, which are left out: " + r.broken.Error()
}

// err says why nothing fits.
func (r *report) err() error {
	if r.failed != nil {
		return r.failed
	}
	if r.allowed == 0 {
		return fmt.Errorf("%w: of %s, none has devices of this driver and may be used", ErrNoFit, nodes(r.all))
	}
	var why []string
	for _, part := range []struct {
		lack lack
		text string
	}{
		{lacksMatch, "too few devices match"},
		{lacksFree, "too few of the devices that match are free and healthy"},
		{refused, "free devices do not meet all conditions together"},
		{undecided, "it could not be decided in time whether free devices meet all conditions together"},
	} {
		if n := r.lacking[part.lack]; n > 0 {
			why = append(why, fmt.Sprintf("on %d of them %s", n, part.text))
		}
	}
	return fmt.Errorf("%w: %s of %d may be used; %s%s", ErrNoFit, nodes(r.allowed), r.all, strings.Join(why, ", "), r.brokenText())
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// why says what was chosen and for what reason.
func (r *report) why(n *fleet.Node, b *board, devices [][]int, v *variant) string {
	return describe(n, b, devices, v) + ", the best of " + nodes(r.fitting) + " that fit"
}

// describe names the devices and says how they lie.
func describe(n *fleet.Node, b *board, devices [][]int, v *variant) string {
	var names []string
	numas, spots, total := fleet.MakeSet(len(b.numas)), fleet.MakeSet(len(b.spots)), 0
	for _, some := range devices {
		for _, d := range some {
			total++
			numas.Add(b.numa[d])
			spots.Add(b.spot[d])
			if len(names) < maxNames {
				names = append(names, b.devices[d].Name)
			}
		}
	}
	if v.picks == nil {
		return "node " + n.Name
	}
	if more := total - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	where := fmt.Sprintf("on %d NUMA nodes", numas.Len())
	switch {
	case spots.Len() == 1 && total > 1:
		where = "side by side"
	case numas.Len() == 1:
		where = "on one NUMA node"
	}
	taken := 0
	for _, p := range n.Pools {
		taken += p.Taken.Len()
	}
	state := "a machine that is in use already"
	if taken == 0 {
		state = "a machine that was free"
	}
	return fmt.Sprintf("%s of node %s, %s of %s", strings.Join(names, ", "), n.Name, where, state)
}

// maxNames bounds how many devices a sentence names.
const maxNames = 8
