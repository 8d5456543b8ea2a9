package fit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// candidate is a node that may be used, and all nodes that are like it and come
// later.
type candidate struct {
	node *fleet.Node
	// shun is how little the node is wanted, whatever it has.
	shun int
	// alike counts the nodes for which this one stands, itself included.
	alike int
}

// candidates returns the nodes that may be used, in the order of their names, one
// for all that are alike.
func candidates(view *fleet.View, ask Ask, allowed func(*corev1.Node) bool, alone bool) (some []*candidate, total int) {
	type key struct {
		state string
		shun  int
	}
	first := map[key]*candidate{}
	for _, n := range view.Nodes() {
		if len(n.Pools) == 0 || !allowed(n.Object) {
			continue
		}
		total++
		k := key{n.Key(), shun(ask, n.Object)}
		if alone {
			k.state += n.Name
		}
		if c := first[k]; c != nil {
			c.alike++
			continue
		}
		c := &candidate{node: n, shun: k.shun, alike: 1}
		first[k] = c
		some = append(some, c)
	}
	return some, total
}

// shun is how little a node is wanted: 0 for one that nothing speaks against.
func shun(ask Ask, n *corev1.Node) int {
	s := 0
	if ask.Avoid != nil && ask.Avoid(n) {
		s += 2
	}
	if n.Spec.Unschedulable || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}) {
		s++
	}
	return s
}

// allows tells whether all the claims may be on the node.
func (a *Ask) allows(n *corev1.Node, claims []*resourceapi.ResourceClaim) bool {
	if a.Nodes != nil && !a.Nodes(n) {
		return false
	}
	for _, c := range claims {
		if allowed := a.NodesOf[c.UID]; allowed != nil && !allowed(n) {
			return false
		}
	}
	return true
}

func (p *Planner) together(ctx context.Context, view *fleet.View, ask Ask) ([]Choice, error) {
	d, err := p.demand(view, ask.Claims)
	if err != nil {
		return nil, err
	}
	s := &search{evaluator: p.evaluator, view: view, claims: ask.Claims}
	s.report.all = len(view.Nodes())
	for _, v := range d.variants {
		some, total := candidates(view, ask, func(n *corev1.Node) bool { return ask.allows(n, ask.Claims) }, v.own)
		s.report.start(total)
		choices, err := s.best(ctx, v, some)
		if choices != nil || err != nil {
			return choices, err
		}
	}
	return nil, s.report.err()
}

// search looks for the best choice for some claims on one node.
type search struct {
	*evaluator
	view   *fleet.View
	claims []*resourceapi.ResourceClaim
	report report
	// spent is the time for which the allocator has looked for what could not be
	// guessed.
	spent time.Duration
}

// prospect is a candidate with what can be done there.
type prospect struct {
	*candidate
	*known
	// at is the option that is next. Those before are refused, or could not be
	// decided this time.
	at     int
	lacked lack
}

// next goes to the next option that is not known to be refused.
func (p *prospect) next() bool {
	for p.at < len(p.options) && p.options[p.at].refused {
		p.lacked = max(p.lacked, refused)
		p.at++
	}
	return p.at < len(p.options)
}

// best tries what is most promising, until the allocator says yes.
func (s *search) best(ctx context.Context, v *variant, some []*candidate) ([]Choice, error) {
	var open []*prospect
	for _, c := range some {
		k, err := s.look(ctx, v, c.node, nil)
		if err != nil {
			return nil, err
		}
		s.report.noteBroken(k.err)
		next := &prospect{candidate: c, known: k, lacked: k.lacking}
		if !next.next() {
			s.report.add(next.lacked, c.alike)
			continue
		}
		s.report.fitting += c.alike
		open = append(open, next)
	}
	for len(open) > 0 {
		at := mostPromising(open)
		next := open[at]
		if choices, err := s.decide(ctx, v, next); choices != nil || err != nil {
			return choices, err
		}
		if !next.next() {
			s.report.fitting -= next.alike
			s.report.add(next.lacked, next.alike)
			open = slices.Delete(open, at, at+1)
		}
	}
	return nil, nil
}

func mostPromising(open []*prospect) int {
	at := 0
	for i := range open {
		if open[i].compare(open[at]) < 0 {
			at = i
		}
	}
	return at
}

func (p *prospect) compare(other *prospect) int {
	a, b := &p.options[p.at], &other.options[other.at]
	if order := cmp.Or(cmp.Compare(p.shun, other.shun), compareBool(!a.sure, !b.sure)); order != 0 {
		return order
	}
	return a.score.compare(b.score) // then the first by name, for which they come in that order
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// decide asks the allocator about the next option of a prospect, and goes on to
// the one after if it refuses.
func (s *search) decide(ctx context.Context, v *variant, next *prospect) ([]Choice, error) {
	o := &next.options[next.at]
	if !o.sure && s.spent > totalPatience {
		next.pass(undecided)
		return nil, nil
	}
	start := time.Now()
	results, err := s.try(ctx, s.view, v, next.node, nil, o, s.claims)
	if !o.sure {
		s.spent += time.Since(start)
	}
	switch {
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, errUndecided):
		next.pass(undecided)
		return nil, nil
	case err != nil:
		s.report.note(err)
		next.pass(refused)
		return nil, nil
	case results == nil:
		o.refused = true
		next.pass(refused)
		return nil, nil
	}
	b, err := s.board(ctx, v, next.node)
	if err != nil {
		return nil, err
	}
	why := s.report.why(next.node, b.board, b.given(v, next.node.Pools, results), v)
	choices := make([]Choice, len(results))
	for i, result := range results {
		choices[i] = Choice{Claim: s.claims[i].UID, Node: next.node.Name, Allocation: result, Why: why}
	}
	return choices, nil
}

// pass goes on to the option after the next.
func (p *prospect) pass(why lack) {
	p.lacked = max(p.lacked, why)
	p.at++
}
