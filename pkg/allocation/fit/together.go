package fit

import (
	"context"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

type evaluator struct{ cel *cel.Cache }

func newEvaluator() *evaluator {
	return &evaluator{cel: cel.NewCache(1000, cel.Features{EnableConsumableCapacity: true})}
}

type situation struct {
	driver string
	view   *fleet.View
}

func (p *Planner) together(ctx context.Context, view *fleet.View, ask Ask) ([]Choice, error) {
	return p.first(ctx, view, ask, ask.Claims, map[*fleet.Pool]fleet.Set{})
}

// first takes the first node that fits.
func (p *Planner) first(ctx context.Context, view *fleet.View, ask Ask, claims []*resourceapi.ResourceClaim, planned map[*fleet.Pool]fleet.Set) ([]Choice, error) {
	s := &situation{driver: p.fleet.DriverName(), view: view}
	for _, n := range view.Nodes() {
		if ask.Nodes != nil && !ask.Nodes(n.Object) || ask.NodesOf[claims[0].UID] != nil && !ask.NodesOf[claims[0].UID](n.Object) {
			continue
		}
		o := offer{node: n}
		for _, pool := range n.Pools {
			taken := fleet.MakeSet(len(pool.Shape.Devices))
			taken.Union(pool.Taken)
			taken.Union(planned[pool])
			var devices []int
			for d := range pool.Shape.Devices {
				if pool.Shape.Devices[d].Managed {
					devices = append(devices, d)
				}
			}
			o.devices, o.taken = append(o.devices, devices), append(o.taken, taken)
		}
		results, err := p.allocate(ctx, s, o, claims)
		if err != nil {
			return nil, err
		}
		if results == nil {
			continue
		}
		var choices []Choice
		for i, r := range results {
			choices = append(choices, Choice{Claim: claims[i].UID, Node: n.Name, Allocation: r, Why: "the first node that fits"})
			for _, pool := range n.Pools {
				for _, d := range r.Devices.Results {
					if place, ok := pool.Shape.Place(d.Device); ok && d.Pool == pool.Name {
						if planned[pool] == nil {
							planned[pool] = fleet.MakeSet(len(pool.Shape.Devices))
						}
						planned[pool].Add(place)
					}
				}
			}
		}
		return choices, nil
	}
	return nil, fmt.Errorf("%w on any of %d nodes", ErrNoFit, len(view.Nodes()))
}

func (p *Planner) gang(ctx context.Context, view *fleet.View, ask Ask) ([]Choice, error) {
	planned := map[*fleet.Pool]fleet.Set{}
	var all []Choice
	for i := range ask.Claims {
		choices, err := p.first(ctx, view, ask, ask.Claims[i:i+1], planned)
		if err != nil {
			return nil, err
		}
		all = append(all, choices...)
	}
	return all, nil
}
