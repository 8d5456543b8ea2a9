package fit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// gang plans, and has the allocator make what is planned.
func (p *Planner) gang(ctx context.Context, view *fleet.View, ask Ask) ([]Choice, error) {
	s := &gangSearch{search: &search{evaluator: p.evaluator, view: view, claims: ask.Claims}, ask: ask}
	s.report.all = len(view.Nodes())
	if err := s.prepare(); err != nil {
		return nil, err
	}
	// What the allocator refuses is not planned again.
	for range maxReplans {
		plan, err := s.plan(ctx)
		if err != nil {
			return nil, err
		}
		if plan == nil {
			return nil, s.failure()
		}
		choices, err := s.write(ctx, plan)
		if !errors.Is(err, errReplan) {
			return choices, err
		}
	}
	return nil, fmt.Errorf("%w: the allocator has refused %d ways to place %d claims at the same time", ErrNoFit, maxReplans, len(s.claims))
}

// maxReplans bounds how often the allocator may refuse a plan.
const maxReplans = 64

// errReplan tells that the allocator has refused what was planned.
var errReplan = errors.New("the allocator refuses what was planned")

// prepare sorts the nodes and the members.
func (s *gangSearch) prepare() error {
	for _, n := range s.view.Nodes() {
		if len(n.Pools) > 0 && (s.ask.TopologyLabel == "" || n.Object.Labels[s.ask.TopologyLabel] != "") && (s.ask.Nodes == nil || s.ask.Nodes(n.Object)) {
			s.grounds = append(s.grounds, &ground{number: len(s.grounds), node: n, shun: shun(s.ask, n.Object)})
		}
	}
	byKey := map[string]*kind{}
	for _, m := range s.members() {
		d, err := s.demand(s.view, m)
		if err != nil {
			return err
		}
		allowed, text := s.allowed(m)
		k := byKey[d.key+text]
		if k == nil {
			k = &kind{demand: d, allowed: allowed}
			byKey[d.key+text] = k
			s.kinds = append(s.kinds, k)
		}
		k.members = append(k.members, m)
	}
	s.report.start(len(s.grounds))
	return nil
}

// members are the groups, and the claims that are in none.
func (s *gangSearch) members() []member {
	var all []member
	grouped := map[types.UID]bool{}
	for _, group := range s.ask.Groups {
		all = append(all, group)
		for _, c := range group {
			grouped[c.UID] = true
		}
	}
	for _, c := range s.ask.Claims {
		if !grouped[c.UID] {
			all = append(all, member{c})
		}
	}
	return all
}

// allowed tells on which grounds a member may be, also as a text to compare.
func (s *gangSearch) allowed(m member) ([]bool, string) {
	if !slices.ContainsFunc(m, func(c *resourceapi.ResourceClaim) bool { return s.ask.NodesOf[c.UID] != nil }) {
		return nil, ""
	}
	allowed, text := make([]bool, len(s.grounds)), make([]byte, len(s.grounds))
	for i, g := range s.grounds {
		text[i] = '-'
		if allowed[i] = s.ask.allows(g.node.Object, m); allowed[i] {
			text[i] = '+'
		}
	}
	return allowed, string(text)
}

func (k *kind) allows(g *ground) bool { return k.allowed == nil || k.allowed[g.number] }

// forget takes back all places, and what was found out without regard to what
// the allocator has refused since.
func (s *gangSearch) forget(limit int) {
	for _, g := range s.grounds {
		g.more, g.members = nil, nil
	}
	for _, k := range s.kinds {
		k.rooms, k.packs = map[string]int{}, map[packKey]*pack{}
		k.limit = min(limit, len(k.variants))
		if k.variants[k.limit-1].picks == nil { // the allocator's own choice tells nothing beforehand
			k.limit--
		}
	}
}

// gangPlan is a way to place all members.
type gangPlan struct {
	grounds []*ground
	// score sums those of the grounds.
	score score
	shun  int
	label string
}

func (p *gangPlan) compare(o *gangPlan) int {
	return cmp.Or(cmp.Compare(p.shun, o.shun), cmp.Compare(len(p.grounds), len(o.grounds)), p.score.compare(o.score), cmp.Compare(p.label, o.label))
}

// plan finds the best way with the first alternatives of all members; if there
// is none, with the first two, and so on.
func (s *gangSearch) plan(ctx context.Context) (*gangPlan, error) {
	most := 1
	for _, k := range s.kinds {
		most = max(most, len(k.variants))
	}
	for limit := 1; limit <= most; limit++ {
		var best *gangPlan
		for _, domain := range s.domains() {
			for _, shun := range shuns(domain) {
				s.forget(limit)
				some := slices.DeleteFunc(slices.Clone(domain), func(g *ground) bool { return g.shun > shun })
				plan, err := s.planWithin(ctx, some)
				if err != nil {
					return nil, err
				}
				if plan == nil {
					continue
				}
				plan.shun, plan.label = shun, domain[0].node.Object.Labels[s.ask.TopologyLabel]
				if best == nil || plan.compare(best) < 0 {
					best = plan
				}
				break
			}
		}
		if best != nil {
			return best, nil
		}
	}
	return nil, nil
}

// domains are the groups of grounds of which one must have the whole gang.
func (s *gangSearch) domains() [][]*ground {
	if s.ask.TopologyLabel == "" {
		return [][]*ground{s.grounds}
	}
	var values []string
	by := map[string][]*ground{}
	for _, g := range s.grounds {
		value := g.node.Object.Labels[s.ask.TopologyLabel]
		if by[value] == nil {
			values = append(values, value)
		}
		by[value] = append(by[value], g)
	}
	slices.Sort(values)
	var all [][]*ground
	for _, value := range values {
		all = append(all, by[value])
	}
	return all
}

// shuns are the bounds of what nodes to use: the wanted ones, or else also those
// that are wanted less.
func shuns(domain []*ground) []int {
	var all []int
	for _, g := range domain {
		all = append(all, g.shun)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *gangSearch) planWithin(ctx context.Context, grounds []*ground) (*gangPlan, error) {
	var used []*ground
	var err error
	if len(s.kinds) == 1 {
		used, err = s.placeAlike(ctx, s.kinds[0], grounds)
	} else {
		used, err = s.placeMixed(ctx, grounds)
	}
	if err != nil || used == nil {
		return nil, err
	}
	plan := &gangPlan{}
	for _, g := range used {
		// The plan keeps what is placed; the next one begins with empty grounds.
		copied := *g
		plan.grounds = append(plan.grounds, &copied)
		places := make([]place, len(g.members))
		for i, m := range g.members {
			places[i] = m.place
		}
		empty := &ground{node: g.node}
		rated, err := s.rateAll(ctx, empty, places)
		if err != nil {
			return nil, err
		}
		plan.score = plan.score.plus(rated)
	}
	return plan, nil
}

// write has the allocator make what is planned.
func (s *gangSearch) write(ctx context.Context, plan *gangPlan) ([]Choice, error) {
	done := map[types.UID]Choice{}
	for _, g := range plan.grounds {
		var more fleet.Set
		for _, m := range g.members {
			o := &option{sure: true}
			if !m.v.isWhole() {
				o.order = slices.Concat(m.devices...)
			}
			results, err := s.try(ctx, s.view, m.v, g.node, more, o, m.member)
			if errors.Is(err, errUndecided) {
				return nil, fmt.Errorf("%w: it could not be decided in time whether node %s has room for claim %s/%s", ErrNoFit, g.node.Name, m.member[0].Namespace, m.member[0].Name)
			} else if err != nil {
				return nil, err
			}
			b, err := s.board(ctx, m.v, g.node)
			if err != nil {
				return nil, err
			}
			if results == nil {
				return nil, s.refuse(ctx, m, g.node, more)
			}
			why := describe(g.node, b.board, m.devices, m.v)
			if len(s.claims) > 1 {
				why += fmt.Sprintf("; the %d claims that are placed together are on %s", len(s.claims), nodes(len(plan.grounds)))
			}
			for i, c := range m.member {
				done[c.UID] = Choice{Claim: c.UID, Node: g.node.Name, Allocation: results[i], Why: why}
			}
			// Where it was shown all, it may have taken others than planned.
			more = b.with(more, place{v: m.v, devices: b.given(m.v, g.node.Pools, results)})
		}
	}
	choices := make([]Choice, len(s.claims))
	for i, c := range s.claims {
		choices[i] = done[c.UID]
	}
	return choices, nil
}

// refuse remembers that the allocator does not give a member what was guessed.
func (s *gangSearch) refuse(ctx context.Context, m placed, n *fleet.Node, more fleet.Set) error {
	known, err := s.look(ctx, m.v, n, more)
	if err != nil {
		return err
	}
	for i := range known.options {
		o := &known.options[i]
		if o.sure && !o.refused && slices.EqualFunc(o.devices, m.devices, slices.Equal) {
			o.refused = true
			return errReplan
		}
	}
	return fmt.Errorf("claim %s/%s: node %s: the allocator refuses devices that it should give; please report this", m.member[0].Namespace, m.member[0].Name, n.Name)
}

// failure says why there is no way.
func (s *gangSearch) failure() error {
	if s.report.failed != nil {
		return s.report.failed
	}
	within := ""
	if s.ask.TopologyLabel != "" {
		within = fmt.Sprintf(" that have the same value of the label %s", s.ask.TopologyLabel)
	}
	return fmt.Errorf("%w: %d claims need devices at the same time, and %s of %d that may be used%s have not enough free ones for all of them together%s",
		ErrNoFit, len(s.claims), nodes(len(s.grounds)), s.report.all, within, s.report.brokenText())
}
