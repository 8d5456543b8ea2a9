package fit

import (
	"context"
	"errors"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// member is one claim of a gang, or several that need the same node.
type member []*resourceapi.ResourceClaim

// kind is what members of a gang have in common that ask for the same and may
// use the same nodes.
type kind struct {
	*demand
	members []member
	// allowed has an entry for each ground.
	allowed []bool
	// limit is how many of the variants may be used.
	limit int
	// rooms and packs remember what was found out, by the state of the ground.
	rooms map[string]int
	packs map[packKey]*pack
}

type packKey struct {
	state   string
	members int
}

// ground is a node on which members of a gang are placed.
type ground struct {
	number int
	node   *fleet.Node
	shun   int
	// more are the devices that the members get.
	more    fleet.Set
	members []placed
}

// placed is a member of a gang on a ground.
type placed struct {
	kind   *kind
	member member
	place
}

// place is what one member gets.
type place struct {
	v       *variant
	devices [][]int
}

// pack is the best way to place some members of one kind on a ground.
type pack struct {
	places []place
	score  score
}

// key is the same for grounds on which the same can be done.
func (g *ground) key() string {
	key := []byte(g.node.Key())
	for _, word := range g.more {
		for shift := 0; shift < 64; shift += 8 {
			key = append(key, byte(word>>shift))
		}
	}
	return string(key)
}

// with returns the devices that are taken on a ground besides what the fleet
// knows, together with those of a place.
func (b *board) with(more fleet.Set, p place) fleet.Set {
	all := fleet.MakeSet(len(b.devices))
	all.Union(more)
	for i, devices := range p.devices {
		if p.v.requests[i].admin {
			continue
		}
		for _, d := range devices {
			all.Add(d)
		}
	}
	return all
}

// gangSearch places the members of a gang.
type gangSearch struct {
	*search
	ask     Ask
	kinds   []*kind
	grounds []*ground
}

// place finds the best place for one more member of a kind on a node.
func (s *gangSearch) place(ctx context.Context, k *kind, n *fleet.Node, more fleet.Set) (*place, error) {
	for _, v := range k.variants[:k.limit] {
		known, err := s.look(ctx, v, n, more)
		if err != nil {
			return nil, err
		}
		s.report.noteBroken(known.err)
		for i := range known.options {
			o := &known.options[i]
			if !o.sure && !o.refused {
				if err := s.settle(ctx, k.members[0], v, n, more, o); err != nil {
					return nil, err
				}
			}
			if o.sure && !o.refused {
				return &place{v: v, devices: o.devices}, nil
			}
		}
	}
	return nil, nil
}

// settle finds out what the allocator makes of an option that is not sure. Then
// it is sure, or refused, or neither if it could not be found out.
func (s *gangSearch) settle(ctx context.Context, claims []*resourceapi.ResourceClaim, v *variant, n *fleet.Node, more fleet.Set, o *option) error {
	if s.spent > totalPatience {
		return nil
	}
	start := time.Now()
	results, err := s.try(ctx, s.view, v, n, more, o, claims)
	s.spent += time.Since(start)
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, errUndecided):
		return nil
	case err != nil:
		s.report.note(err)
		return nil
	case results == nil:
		o.refused = true
		return nil
	}
	b, err := s.board(ctx, v, n)
	if err != nil {
		return err
	}
	o.devices, o.sure = b.given(v, n.Pools, results), true
	if !v.isWhole() {
		o.order = slices.Concat(o.devices...)
	}
	o.score = newState(b.board, n, more).rate(v, nil, o.devices)
	return nil
}

// room is how many members of a kind a ground has room for.
func (s *gangSearch) room(ctx context.Context, k *kind, g *ground) (int, error) {
	key := g.key()
	if n, ok := k.rooms[key]; ok {
		return n, nil
	}
	n := 0
	more := g.more
	for n < len(k.members) {
		p, err := s.place(ctx, k, g.node, more)
		if err != nil {
			return 0, err
		}
		if p == nil {
			break
		}
		b, err := s.board(ctx, p.v, g.node)
		if err != nil {
			return 0, err
		}
		more = b.with(more, *p)
		n++
	}
	k.rooms[key] = n
	return n, nil
}

// pack finds the best way to place so many members on a ground: one after the
// other, or all at once as if they were one claim. It returns nil if neither
// works out.
func (s *gangSearch) pack(ctx context.Context, k *kind, g *ground, members int) (*pack, error) {
	key := packKey{g.key(), members}
	if p, ok := k.packs[key]; ok {
		return p, nil
	}
	var best *pack
	for _, way := range []func(context.Context, *kind, *ground, int) ([]place, error){s.inTurn, s.atOnce} {
		places, err := way(ctx, k, g, members)
		if err != nil {
			return nil, err
		}
		if places == nil {
			continue
		}
		p := &pack{places: places}
		if p.score, err = s.rateAll(ctx, g, places); err != nil {
			return nil, err
		}
		if best == nil || p.score.compare(best.score) < 0 {
			best = p
		}
	}
	k.packs[key] = best
	return best, nil
}

func (s *gangSearch) inTurn(ctx context.Context, k *kind, g *ground, members int) ([]place, error) {
	var places []place
	more := g.more
	for range members {
		p, err := s.place(ctx, k, g.node, more)
		if p == nil || err != nil {
			return nil, err
		}
		b, err := s.board(ctx, p.v, g.node)
		if err != nil {
			return nil, err
		}
		places = append(places, *p)
		more = b.with(more, *p)
	}
	return places, nil
}

// atOnce places the members with the guess for all of them together, or where
// there is none, with what the allocator makes of it.
func (s *gangSearch) atOnce(ctx context.Context, k *kind, g *ground, members int) ([]place, error) {
	claims := slices.Repeat(k.members[0], members)
	d, err := s.demand(s.view, claims)
	if err != nil {
		return nil, err
	}
	joint, one := d.variants[0], k.variants[0]
	known, err := s.look(ctx, joint, g.node, g.more)
	if err != nil {
		return nil, err
	}
	for i := range known.options {
		o := &known.options[i]
		if !o.sure && !o.refused {
			if err := s.settle(ctx, claims, joint, g.node, g.more, o); err != nil {
				return nil, err
			}
		}
		if !o.sure || o.refused {
			continue
		}
		places := make([]place, members)
		each := len(one.requests)
		for m := range places {
			places[m] = place{v: one, devices: o.devices[m*each : (m+1)*each]}
		}
		return places, nil
	}
	return nil, nil
}

// rateAll rates several places on a ground together.
func (s *gangSearch) rateAll(ctx context.Context, g *ground, places []place) (score, error) {
	var all variant
	var usable []fleet.Set
	var devices [][]int
	var now *state
	claims := 0
	for _, p := range places {
		b, err := s.board(ctx, p.v, g.node)
		if err != nil {
			return score{}, err
		}
		if now == nil {
			now = newState(b.board, g.node, g.more)
		}
		first := claims
		for i, r := range p.v.requests {
			r.claim += first
			claims = max(claims, r.claim+1)
			all.requests = append(all.requests, r)
			usable = append(usable, b.usable(p.v, i, now))
		}
		devices = append(devices, p.devices...)
	}
	return now.rate(&all, usable, devices), nil
}
