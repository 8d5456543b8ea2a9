package fit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// evaluator finds out what can be done with the claims of a demand on a node, and
// remembers it for all that is alike. One goroutine at a time uses it.
type evaluator struct {
	*matcher
	driver  string
	boards  map[string]*board
	demands map[string]*demand
	// remembered counts what all variants of all demands know.
	remembered int
}

func newEvaluator(driver string) *evaluator {
	return &evaluator{matcher: newMatcher(), driver: driver, boards: map[string]*board{}, demands: map[string]*demand{}}
}

// boarded is a board with what suits a variant on it.
type boarded struct {
	*board
	*suits
}

// known is what can be done in a state, the best first.
type known struct {
	options []option
	// lacking tells why there are none.
	lacking lack
	// err is what was wrong with a device that therefore suits nobody.
	err error
}

// lack is why nothing can be done in a state.
type lack int

const (
	// lacksMatch: too few devices match, were they all free.
	lacksMatch lack = iota + 1
	// lacksFree: enough match, but too few of them are free and healthy.
	lacksFree
	// refused: the allocator has said no, as for constraints.
	refused
	// undecided: the allocator did not come to an end.
	undecided
)

// Bounds of what is remembered; beyond them it is worked out again.
const (
	maxBoards  = 256
	maxDemands = 512
	maxKnown   = 50_000
)

// keep empties a memory that has got too large.
func keep[K comparable, V any](memory map[K]V, most int) {
	if len(memory) >= most {
		clear(memory)
	}
}

// demand returns what the claims ask, in the form in which it is remembered.
func (e *evaluator) demand(view *fleet.View, claims []*resourceapi.ResourceClaim) (*demand, error) {
	key, err := demandKey(view, claims)
	if err != nil {
		return nil, err
	}
	if d := e.demands[key]; d != nil {
		return d, nil
	}
	d, err := newDemand(view, key, claims)
	if err != nil {
		return nil, err
	}
	for _, v := range d.variants {
		v.own = v.own || slices.ContainsFunc(v.requests, func(r request) bool { return e.needsOwn(&r) }) ||
			slices.ContainsFunc(v.constraints, func(c constraint) bool { return c.isOwn() })
	}
	keep(e.demands, maxDemands)
	e.demands[key] = d
	return d, nil
}

// board returns how a node is built, and what of it suits the variant.
func (e *evaluator) board(ctx context.Context, v *variant, n *fleet.Node) (*boarded, error) {
	key := boardKey(n.Pools)
	b := e.boards[key]
	if b == nil {
		b = newBoard(n.Pools)
		keep(e.boards, maxBoards)
		e.boards[key] = b
	}
	if v.own {
		key += n.Name
	}
	if there := v.boards[key]; there != nil && !v.own {
		return there, nil
	}
	s, err := e.suits(ctx, e.driver, b, n.Pools, v)
	if err != nil {
		return nil, err
	}
	there := &boarded{board: b, suits: s}
	if !v.own {
		keep(v.boards, maxBoards)
		v.boards[key] = there
	}
	return there, nil
}

// look tells what can be done on a node on which some more than the fleet knows
// may be taken.
func (e *evaluator) look(ctx context.Context, v *variant, n *fleet.Node, more fleet.Set) (*known, error) {
	key := n.Key()
	if !v.own && more == nil {
		if k := v.known[key]; k != nil {
			return k, nil
		}
	}
	b, err := e.board(ctx, v, n)
	if err != nil {
		return nil, err
	}
	now := newState(b.board, n, more)
	if more != nil {
		key = "+" + now.key
		if k := v.known[key]; k != nil && !v.own {
			return k, nil
		}
	}
	k := &known{options: options(v, b.suits, now), err: b.err}
	if len(k.options) == 0 {
		k.lacking = lacksFree
		if !possible(v, b.match, b.suits, b.managed) {
			k.lacking = lacksMatch
		}
	}
	if !v.own {
		e.remember(v, key, k)
	}
	return k, nil
}

// remember keeps what is known, and forgets all if it has become too much: most
// of it is of states that will not come back.
func (e *evaluator) remember(v *variant, key string, k *known) {
	if e.remembered >= maxKnown {
		e.remembered = 0
		for _, d := range e.demands {
			for _, v := range d.variants {
				clear(v.known)
			}
		}
	}
	e.remembered++
	v.known[key] = k
}

// How long the allocator may think about one node: it tries everything, which in
// bad cases takes longer than anybody waits.
const (
	patience      = time.Second
	longPatience  = 500 * time.Millisecond
	totalPatience = 2 * time.Second
)

// errUndecided is returned when the allocator did not come to an end.
var errUndecided = errors.New("the allocator did not come to an end")

// try shows an option to the allocator. It returns nil if the allocator refuses.
func (e *evaluator) try(ctx context.Context, view *fleet.View, v *variant, n *fleet.Node, more fleet.Set, o *option, claims []*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, error) {
	b, err := e.board(ctx, v, n)
	if err != nil {
		return nil, err
	}
	now := newState(b.board, n, more)
	order := o.order
	if order == nil {
		order = inOrder(v, b.suits, now)
	}
	limit := patience
	if !o.sure {
		limit = longPatience
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, errUndecided)
	defer cancel()
	shown := offer{node: n, devices: b.split(order), taken: b.splitSet(now.taken, n.Pools)}
	results, err := e.allocate(limited, view, shown, v.claims(claims))
	switch {
	case err == nil:
		return results, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("choose devices of node %s: %w", n.Name, context.Cause(ctx))
	case limited.Err() != nil:
		return nil, errUndecided
	case errors.Is(err, structured.ErrFailedAllocationOnNode):
		return nil, nil
	}
	return nil, fmt.Errorf("node %s: %w", n.Name, err)
}

// given returns the devices that the results give to each request, as places on
// the board.
func (b *board) given(v *variant, pools []*fleet.Pool, results []resourceapi.AllocationResult) [][]int {
	devices := make([][]int, len(v.requests))
	for i, r := range v.requests {
		name := r.name
		if r.sub != "" {
			name += "/" + r.sub
		}
		for _, result := range results[r.claim].Devices.Results {
			if result.Request != name {
				continue
			}
			if d, ok := b.place(pools, result); ok {
				devices[i] = append(devices[i], d)
			}
		}
	}
	return devices
}

func (b *board) place(pools []*fleet.Pool, result resourceapi.DeviceRequestAllocationResult) (int, bool) {
	for i, p := range pools {
		if n, ok := p.Shape.Place(result.Device); ok && p.Name == result.Pool {
			return b.first[i] + n, true
		}
	}
	return 0, false
}
