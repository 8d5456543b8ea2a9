package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

const (
	// tries bounds how many different nodes the allocator is asked about.
	tries = 8
	// tryTime bounds one question to the allocator: it tries all combinations,
	// and gives up after 10 s of its own.
	tryTime = 200 * time.Millisecond
)

// onceFree tells how it is with a claim for which too little is free: whether it
// would fit if nothing were given. Devices that are not there for now may be the
// reason why it would not, and a single request has been counted already.
func (a *Analyst) onceFree(ctx context.Context, q *question, p *places, tallies []*tally, text string) Explanation {
	if len(tallies) == 1 || slices.ContainsFunc(tallies, func(t *tally) bool { return t.temporary() || len(t.ill) > 0 || t.failed != "" }) {
		return Explanation{ReasonWaiting, text}
	}
	claim, _ := ownPart(q.claim, tallies)
	return a.blame(ctx, q, p, claim, text)
}

// search asks the allocator itself, once the numbers do not tell why the claim
// waits: first for the claim as it is, then with one constraint less at a time.
func (a *Analyst) search(ctx context.Context, q *question, p *places, tallies []*tally) Explanation {
	claim, foreign := ownPart(q.claim, tallies)
	if len(claim.Spec.Devices.Requests) == 0 {
		return Explanation{ReasonWaiting, "It waits for devices of other drivers."}
	}
	nodes := differing(p.fitting)
	node, sure := a.fitting(ctx, q, nodes, claim, true)
	if node != "" {
		return a.devicesThere(q, node, foreign)
	}
	if !sure {
		return Explanation{ReasonWaiting, "Each request alone has enough free devices, but to find out whether some fit together takes too long."}
	}
	constraints := claim.Spec.Devices.Constraints
	for i, c := range constraints {
		less := claim.DeepCopy()
		less.Spec.Devices.Constraints = slices.Delete(less.Spec.Devices.Constraints, i, i+1)
		if node, _ := a.fitting(ctx, q, nodes, less, true); node != "" {
			return a.blame(ctx, q, p, claim, fmt.Sprintf("On %s the claim would fit now but for the constraint that %s.", node, describe(c)))
		}
	}
	if len(constraints) > 1 {
		less := claim.DeepCopy()
		less.Spec.Devices.Constraints = nil
		if node, _ := a.fitting(ctx, q, nodes, less, true); node != "" {
			return a.blame(ctx, q, p, claim, fmt.Sprintf("On %s the claim would fit now but for its constraints, of which dropping one is not enough: %s.", node, describeAll(constraints)))
		}
	}
	return a.blame(ctx, q, p, claim, "Each request alone has enough free devices on some node, but no node has enough for all of them at once: devices that consist of the same hardware, or share some, are not given together.")
}

// devicesThere explains a claim for which devices are free.
func (a *Analyst) devicesThere(q *question, node string, foreign bool) Explanation {
	text := fmt.Sprintf("Enough devices are free, for instance on %s; ", node)
	switch {
	case foreign:
		text += "what is missing are devices of other drivers, or a node that has both."
	case q.managed && q.claim.Labels[v1alpha1.LabelGang] != "":
		text += "the controller allocates the claim once its gang is complete and has room for all, unless an event of the claim says what is wrong with the gang."
	case q.managed:
		text += "the controller allocates the claim in a moment, unless it waits for other claims of its pod or for a while after a failure."
	case len(q.consumers.Pods) > 0:
		text += fmt.Sprintf("what else keeps pod %s from that node is told in the pod's events.", q.consumers.Pods[0].Name)
	default:
		text += "kube-scheduler allocates the claim when it schedules its pod."
	}
	return Explanation{ReasonWaiting, text}
}

// blame adds whether the claim would fit if nothing were given to others.
func (a *Analyst) blame(ctx context.Context, q *question, p *places, claim *resourceapi.ResourceClaim, text string) Explanation {
	if node, sure := a.fitting(ctx, q, shapes(p.fitting), claim, false); node == "" && sure {
		return Explanation{ReasonImpossible, text + " It would fit nowhere even if all devices were free."}
	}
	return Explanation{ReasonWaiting, text}
}

// ownPart returns the claim without what is asked of other drivers, and whether
// there was any.
func ownPart(claim *resourceapi.ResourceClaim, tallies []*tally) (*resourceapi.ResourceClaim, bool) {
	foreign := func(name string) bool {
		return slices.ContainsFunc(tallies, func(t *tally) bool { return (t.name == name || t.parent == name) && t.foreign })
	}
	own := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: claim.Name, Namespace: claim.Namespace, UID: claim.UID}}
	own.Spec = *claim.Spec.DeepCopy()
	d := &own.Spec.Devices
	d.Config = nil
	before := len(d.Requests)
	d.Requests = slices.DeleteFunc(d.Requests, func(r resourceapi.DeviceRequest) bool { return foreign(r.Name) })
	if len(d.Requests) < before {
		d.Constraints = slices.DeleteFunc(d.Constraints, func(c resourceapi.DeviceConstraint) bool {
			return len(c.Requests) == 0 || slices.ContainsFunc(c.Requests, foreign)
		})
	}
	return own, len(d.Requests) < before
}

// differing returns nodes that have different things to give, not too many of
// them, those with most free first.
func differing(nodes []*fleet.Node) []*fleet.Node {
	return distinct(nodes, func(n *fleet.Node) string { return n.Key() })
}

// shapes returns nodes that differ in what they would have to give if nothing
// were given.
func shapes(nodes []*fleet.Node) []*fleet.Node {
	return distinct(nodes, func(n *fleet.Node) string {
		key := ""
		for _, p := range n.Pools {
			key += fmt.Sprintf("%p/", p.Shape)
		}
		return key
	})
}

func distinct(nodes []*fleet.Node, key func(*fleet.Node) string) []*fleet.Node {
	seen := map[string]bool{}
	var all []*fleet.Node
	for _, n := range nodes {
		if k := key(n); !seen[k] {
			seen[k] = true
			all = append(all, n)
		}
	}
	slices.SortStableFunc(all, func(a, b *fleet.Node) int { return freeOn(b) - freeOn(a) })
	return all[:min(len(all), tries)]
}

func freeOn(n *fleet.Node) int {
	free := 0
	for _, p := range n.Pools {
		free += p.Free.Len()
	}
	return free
}

// fitting returns the first node on which the allocator finds devices for the
// claim, with what is given taken into account or not. It is not sure of there
// being none if the allocator did not come to an end in time.
func (a *Analyst) fitting(ctx context.Context, q *question, nodes []*fleet.Node, claim *resourceapi.ResourceClaim, given bool) (node string, sure bool) {
	sure = true
	for _, n := range nodes {
		try, cancel := context.WithTimeout(ctx, a.tryTime)
		ok := a.fits(try, q, n, claim, given)
		sure = sure && try.Err() == nil
		cancel()
		switch {
		case ok:
			return n.Name, true
		case ctx.Err() != nil:
			return "", false
		}
	}
	return "", sure
}

func (a *Analyst) fits(ctx context.Context, q *question, n *fleet.Node, claim *resourceapi.ResourceClaim, given bool) bool {
	offered, state := a.offer(q, n, given)
	features := structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true,
		DeviceTaints: true, PartitionableDevices: true, PrioritizedList: true,
	}
	allocator, err := structured.NewAllocator(ctx, features, state, q.view, offered, a.classes.Expressions())
	if err != nil {
		return false
	}
	results, err := allocator.Allocate(ctx, n.Object, []*resourceapi.ResourceClaim{claim})
	return err == nil && len(results) == 1
}

// offer returns what a node has for the claim's allocator. What others have is
// there too, for the counters that it takes.
func (a *Analyst) offer(q *question, n *fleet.Node, given bool) ([]*resourceapi.ResourceSlice, structured.AllocatedState) {
	state := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	var all []*resourceapi.ResourceSlice
	for _, pool := range n.Pools {
		var devices []resourceapi.Device
		for d := range pool.Shape.Devices {
			taken := given && pool.Taken.Has(d)
			if taken || pool.Shape.Devices[d].Managed == q.managed {
				devices = append(devices, pool.Device(d))
			}
			if taken {
				state.AllocatedDevices.Insert(structured.MakeDeviceID(a.driver, pool.Name, pool.Shape.Devices[d].Name))
			}
		}
		for _, share := range pool.Shares {
			if !given {
				break
			}
			id := structured.MakeDeviceID(a.driver, pool.Name, pool.Shape.Devices[share.Device].Name)
			state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, ptr.To(share.ID)))
			if share.Capacity != nil {
				state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, share.Capacity))
			}
		}
		of := resourceapi.ResourceSliceSpec{
			Driver: a.driver, NodeName: &n.Name,
			Pool: resourceapi.ResourcePool{Name: pool.Name, Generation: 1, ResourceSliceCount: 2},
		}
		counters, rest := of, of
		counters.SharedCounters, rest.Devices = pool.Shape.CounterSets(), devices
		all = append(all,
			&resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: pool.Name + "-0"}, Spec: counters},
			&resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: pool.Name + "-1"}, Spec: rest})
	}
	return all, state
}

// describe says what a constraint demands.
func describe(c resourceapi.DeviceConstraint) string {
	of := "of all requests"
	if len(c.Requests) > 0 {
		of = verb(len(c.Requests), "of request ", "of requests ") + list(c.Requests)
	}
	switch {
	case c.MatchAttribute != nil:
		return fmt.Sprintf("the devices %s have the same %s", of, *c.MatchAttribute)
	case c.DistinctAttribute != nil:
		return fmt.Sprintf("the devices %s all have different %s", of, *c.DistinctAttribute)
	default:
		return "is of a kind that this version does not know"
	}
}

func describeAll(constraints []resourceapi.DeviceConstraint) string {
	var all []string
	for _, c := range constraints {
		all = append(all, describe(c))
	}
	return list(all)
}
