package fit

import (
	"cmp"
	"context"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// maxMoves bounds how often a member is tried on a ground in place of another.
const maxMoves = 4096

// placeMixed places members that differ: the largest first, of these the ones
// that may use the fewest nodes. Whoever finds no room has others make way. It
// returns the grounds that are used, or nil.
func (s *gangSearch) placeMixed(ctx context.Context, grounds []*ground) ([]*ground, error) {
	kinds := slices.Clone(s.kinds)
	slices.SortStableFunc(kinds, func(a, b *kind) int {
		return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(a.choice(grounds), b.choice(grounds)))
	})
	m := &mover{gangSearch: s, grounds: grounds}
	for _, k := range kinds {
		for _, one := range k.members {
			m.visited = map[*ground]bool{}
			ok, err := m.add(ctx, placed{kind: k, member: one})
			if err != nil || !ok {
				return nil, err
			}
		}
	}
	var used []*ground
	for _, g := range grounds {
		if len(g.members) > 0 {
			used = append(used, g)
		}
	}
	return used, nil
}

// size is how many devices a member asks for.
func (k *kind) size() int {
	n := 0
	for _, r := range k.variants[0].requests {
		n += max(1, r.count)
	}
	return n
}

// choice is how many of the grounds a member may use.
func (k *kind) choice(grounds []*ground) int {
	n := 0
	for _, g := range grounds {
		if k.allows(g) {
			n++
		}
	}
	return n
}

// mover places members one by one.
type mover struct {
	*gangSearch
	grounds []*ground
	visited map[*ground]bool
	moves   int
}

// add finds room for a member. Where there is none, a member that is there moves
// elsewhere, for which others may have to move in turn.
func (m *mover) add(ctx context.Context, p placed) (bool, error) {
	best, at, err := m.find(ctx, p)
	if err != nil {
		return false, err
	}
	if at != nil {
		p.place = *best
		return true, m.put(ctx, at, append(at.members, p))
	}
	for _, g := range m.grounds {
		if !p.kind.allows(g) || m.visited[g] || len(g.members) == 0 {
			continue
		}
		m.visited[g] = true
		for i := range g.members {
			if m.moves++; m.moves > maxMoves {
				return false, nil
			}
			if ok, err := m.replace(ctx, g, i, p); ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}

// find returns the best place for a member: on a ground that is used already, if
// there is room on one, or else on the one with the most room.
func (m *mover) find(ctx context.Context, p placed) (*place, *ground, error) {
	var best *place
	var at *ground
	var bestRoom int
	var bestScore score
	for _, g := range m.grounds {
		if !p.kind.allows(g) || at != nil && len(at.members) > 0 && len(g.members) == 0 {
			continue
		}
		there, err := m.place(ctx, p.kind, g.node, g.more)
		if err != nil {
			return nil, nil, err
		}
		if there == nil {
			continue
		}
		room, err := m.room(ctx, p.kind, g)
		if err != nil {
			return nil, nil, err
		}
		rated, err := m.rateAll(ctx, g, []place{*there})
		if err != nil {
			return nil, nil, err
		}
		firstUsed := at != nil && len(at.members) == 0 && len(g.members) > 0
		order := cmp.Compare(bestRoom, room)
		if len(g.members) > 0 {
			order = 0
		}
		if at == nil || firstUsed || cmp.Or(order, rated.compare(bestScore)) < 0 {
			best, at, bestRoom, bestScore = there, g, room, rated
		}
	}
	return best, at, nil
}

// replace puts a member on a ground in place of another, if there is room for
// that one elsewhere.
func (m *mover) replace(ctx context.Context, g *ground, i int, p placed) (bool, error) {
	before, more := g.members, g.more
	moved := before[i]
	if err := m.put(ctx, g, slices.Delete(slices.Clone(before), i, i+1)); err != nil {
		return false, err
	}
	there, err := m.place(ctx, p.kind, g.node, g.more)
	if err != nil {
		return false, err
	}
	if there != nil {
		p.place = *there
		if err := m.put(ctx, g, append(g.members, p)); err != nil {
			return false, err
		}
		if ok, err := m.add(ctx, moved); ok || err != nil {
			return ok, err
		}
	}
	g.members, g.more = before, more
	return false, nil
}

// put makes the members those of the ground.
func (m *mover) put(ctx context.Context, g *ground, members []placed) error {
	var more fleet.Set
	for _, p := range members {
		b, err := m.board(ctx, p.v, g.node)
		if err != nil {
			return err
		}
		more = b.with(more, p.place)
	}
	g.members, g.more = members, more
	return nil
}
