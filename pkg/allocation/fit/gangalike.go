package fit

import (
	"cmp"
	"context"
	"slices"
)

// placeAlike places members that ask for the same. It returns the grounds that
// are used, or nil if there is not enough room.
func (s *gangSearch) placeAlike(ctx context.Context, k *kind, grounds []*ground) ([]*ground, error) {
	stands, err := s.stands(ctx, k, grounds)
	if err != nil {
		return nil, err
	}
	if room(stands) < len(k.members) {
		if err := s.stretch(ctx, k, stands); err != nil {
			return nil, err
		}
		if room(stands) < len(k.members) {
			return nil, nil
		}
	}
	var used []*ground
	for rest := k.members; len(rest) > 0; {
		next, members, err := s.nextStand(ctx, k, stands, len(rest))
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, nil
		}
		g := next.grounds[0]
		next.grounds = next.grounds[1:]
		p, err := s.pack(ctx, k, g, members)
		if err != nil {
			return nil, err
		}
		for i, at := range p.places {
			g.members = append(g.members, placed{kind: k, member: rest[i], place: at})
		}
		used, rest = append(used, g), rest[members:]
	}
	return used, nil
}

// stand is some grounds on which the same can be done.
type stand struct {
	grounds []*ground
	room    int
}

// stands groups the grounds by what can be done there.
func (s *gangSearch) stands(ctx context.Context, k *kind, grounds []*ground) ([]*stand, error) {
	byKey := map[string]*stand{}
	var all []*stand
	for _, g := range grounds {
		if !k.allows(g) {
			continue
		}
		key := g.key()
		if slices.ContainsFunc(k.variants, func(v *variant) bool { return v.own && v.picks != nil }) {
			key += g.node.Name
		}
		if at := byKey[key]; at != nil {
			at.grounds = append(at.grounds, g)
			continue
		}
		n, err := s.room(ctx, k, g)
		if err != nil {
			return nil, err
		}
		at := &stand{grounds: []*ground{g}, room: n}
		byKey[key] = at
		all = append(all, at)
	}
	return all, nil
}

func room(stands []*stand) int {
	n := 0
	for _, at := range stands {
		n += at.room * len(at.grounds)
	}
	return n
}

// stretch looks for room for one more where placing one after the other has come
// to an end: the allocator may find a better way for all together.
func (s *gangSearch) stretch(ctx context.Context, k *kind, stands []*stand) error {
	for _, at := range stands {
		for at.room < len(k.members) {
			places, err := s.atOnce(ctx, k, at.grounds[0], at.room+1)
			if err != nil {
				return err
			}
			if places == nil {
				break
			}
			at.room++
		}
	}
	return nil
}

// nextStand returns the ground to use next, and for how many members: one that
// has room for all the rest, if there is one, or else one with the most room. So
// as few as possible are used.
func (s *gangSearch) nextStand(ctx context.Context, k *kind, stands []*stand, rest int) (*stand, int, error) {
	members := 0
	for _, at := range stands {
		if len(at.grounds) > 0 {
			members = max(members, min(rest, at.room))
		}
	}
	if members == 0 {
		return nil, 0, nil
	}
	var best *stand
	var bestPack *pack
	for _, at := range stands {
		if len(at.grounds) == 0 || at.room < members {
			continue
		}
		p, err := s.pack(ctx, k, at.grounds[0], members)
		if err != nil {
			return nil, 0, err
		}
		if p == nil {
			continue
		}
		if best == nil || cmp.Or(p.score.compare(bestPack.score), cmp.Compare(at.grounds[0].number, best.grounds[0].number)) < 0 {
			best, bestPack = at, p
		}
	}
	return best, members, nil
}
