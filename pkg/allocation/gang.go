package allocation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
)

// gang is what there is of a gang of claims.
type gang struct {
	name types.NamespacedName
	size int
	// timeout is how long it may wait before that is told.
	timeout time.Duration
	// members are all claims of the gang, the oldest first: those that have
	// their devices, those that want some, and those that nobody uses any more.
	members, have, want []*resourceapi.ResourceClaim
}

// gang looks at one gang.
func (c *Controller) gang(ctx context.Context, r Request) (reconcile.Result, error) {
	if plan := c.unfinished.get(r.NamespacedName); plan != nil {
		return reconcile.Result{}, c.resume(ctx, plan)
	}
	for _, claim := range c.claims.ofGang(r.NamespacedName) {
		if err := c.settle(ctx, claim.UID); err != nil {
			return reconcile.Result{}, err
		}
	}
	g, err := c.gather(r.NamespacedName)
	if len(g.members) == 0 {
		c.waiting.remove(r)
		c.unfinished.gone(r.NamespacedName)
		c.hopeless.Forget(r)
		return reconcile.Result{}, nil
	}
	if err != nil {
		c.waiting.remove(r)
		for _, claim := range g.members {
			if c.memory.once(claim.UID, ReasonInvalidLabel) {
				c.warn(claim, ReasonInvalidLabel, "Gang %s is not allocated: %v", r.Name, err)
			}
		}
		return reconcile.Result{}, nil
	}
	switch {
	case len(g.want) == 0 && len(g.have) >= g.size:
		c.waiting.remove(r)
		return reconcile.Result{}, c.gangIsThere(ctx, g)
	case len(g.have)+len(g.want) < g.size:
		why := fmt.Sprintf("it has %d of its %d claims", len(g.have)+len(g.want), g.size)
		return c.gangWaits(ctx, r, g, why)
	}
	return c.allocateGang(ctx, r, g)
}

// gather reads the labels of the gang's claims. With an error it returns the
// members all the same.
func (c *Controller) gather(name types.NamespacedName) (gang, error) {
	g := gang{name: name, timeout: c.GangTimeout}
	for _, claim := range c.claims.ofGang(name) {
		if ours, _ := c.ours(claim); ours && claim.DeletionTimestamp == nil {
			g.members = append(g.members, claim)
		}
	}
	slices.SortFunc(g.members, func(a, b *resourceapi.ResourceClaim) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, claim := range g.members {
		size, err := strconv.Atoi(claim.Labels[v1alpha1.LabelGangSize])
		if err != nil || size < 1 {
			return g, fmt.Errorf("claim %s: label %s: %q is no number above zero", claim.Name, v1alpha1.LabelGangSize, claim.Labels[v1alpha1.LabelGangSize])
		}
		if g.size != 0 && size != g.size {
			return g, fmt.Errorf("claim %s: label %s is %d, that of claim %s is %d: all claims of a gang have the same", claim.Name, v1alpha1.LabelGangSize, size, g.members[0].Name, g.size)
		}
		timeout, err := durationLabel(claim, v1alpha1.LabelGangTimeout, c.GangTimeout)
		if err != nil {
			return g, fmt.Errorf("claim %s: %w", claim.Name, err)
		}
		if g.size != 0 && timeout != g.timeout {
			return g, fmt.Errorf("claim %s: label %s says %s, that of claim %s %s: all claims of a gang have the same (%s without the label)", claim.Name, v1alpha1.LabelGangTimeout, timeout, g.members[0].Name, g.timeout, c.GangTimeout)
		}
		g.size, g.timeout = size, timeout
		switch {
		case claim.Status.Allocation != nil:
			g.have = append(g.have, claim)
		case c.wanted(claim):
			g.want = append(g.want, claim)
		}
	}
	return g, nil
}

// gangInUse tells whether a pod has reserved any member of the claim's gang.
func (c *Controller) gangInUse(claim *resourceapi.ResourceClaim) bool {
	name := gangOf(claim)
	return name.Name != "" && inUse(c.claims.ofGang(name))
}

func inUse(claims []*resourceapi.ResourceClaim) bool {
	return slices.ContainsFunc(claims, func(c *resourceapi.ResourceClaim) bool { return len(c.Status.ReservedFor) > 0 })
}

// allocateGang gives the gang what it lacks, or nothing.
func (c *Controller) allocateGang(ctx context.Context, r Request, g gang) (reconcile.Result, error) {
	if _, why := c.unfinished.refusal(g.name, c.Clock.Now()); why != nil {
		return c.gangWaits(ctx, r, g, why.Error())
	}
	// A gang that was whole before gets its replacements one by one.
	batch := g.want[:max(g.size-len(g.have), 1)]
	set := c.together(batch...)
	if set.awaits != nil {
		return c.gangWaits(ctx, r, g, fmt.Sprintf("pod %s has claims that are not made yet", set.awaits.Name))
	}
	batch = set.claims
	uids := uidsOf(batch)
	if !c.memory.seize(uids...) {
		return reconcile.Result{}, fmt.Errorf("gang %s: %w", g.name, errBusy)
	}
	defer c.memory.release(uids...)
	c.waiting.add(r, g.members[0].CreationTimestamp.Time) // before the choice, as for a claim
	choices, err := c.choose(func() ([]fit.Choice, error) { return c.chooseGang(ctx, g, batch) })
	switch {
	case errors.Is(err, fit.ErrNoFit):
		return c.gangWaits(ctx, r, g, fmt.Sprintf("its %d claims find no place together: %v", len(batch), err))
	case errors.Is(err, fleet.ErrTaken):
		return reconcile.Result{}, fmt.Errorf("gang %s: %w", g.name, err)
	case err != nil:
		return c.cannot(r, batch[0], err), nil
	}
	c.waiting.remove(r)
	c.hopeless.Forget(r)
	plan := &gangplan.Plan{Gang: g.name}
	for i, choice := range choices {
		plan.Members = append(plan.Members, gangplan.Member{
			Name: batch[i].Name, UID: choice.Claim, Node: choice.Node, Why: choice.Why, Allocation: choice.Allocation,
		})
	}
	if err := c.plans.Save(ctx, *plan); err != nil {
		// It may have been stored, and would be undone by the next leader.
		for i, choice := range choices {
			c.Fleet.Forget(choice.Claim)
			c.tellRefused(batch[i], "store the plan of gang "+g.name.Name, err)
		}
		return reconcile.Result{}, errors.Join(err, c.plans.Delete(ctx, g.name))
	}
	klog.FromContext(ctx).Info("Allocating a gang", "gang", g.name, "claims", len(batch))
	c.unfinished.put(plan)
	return reconcile.Result{}, c.carryOut(ctx, plan)
}

// gangWaits is for a gang that is not complete, or for which there is no room.
// It holds nothing meanwhile, unless it is in use, and neither do the other
// claims of its pods.
func (c *Controller) gangWaits(ctx context.Context, r Request, g gang, why string) (reconcile.Result, error) {
	c.waiting.add(r, g.members[0].CreationTimestamp.Time)
	c.hopeless.Forget(r)
	// One that is whole keeps what it has, however many more ask to join it.
	whole := len(g.have) >= g.size
	if len(g.have) > 0 && !whole && !inUse(g.have) {
		return reconcile.Result{}, c.freeMembers(ctx, g, why) // its claims' news bring it back
	}
	if err := c.giveBackBeside(ctx, g); err != nil {
		return reconcile.Result{}, err
	}
	var next time.Duration
	sooner := func(d time.Duration) {
		if d > 0 && (next == 0 || d < next) {
			next = d
		}
	}
	for _, claim := range c.together(g.want...).claims {
		if _, until := c.memory.leftOut(claim.UID); !until.IsZero() {
			sooner(until.Sub(c.Clock.Now()) + time.Millisecond)
		}
	}
	pause, _ := c.unfinished.refusal(g.name, c.Clock.Now())
	sooner(pause)
	switch left := g.members[0].CreationTimestamp.Add(g.timeout).Sub(c.Clock.Now()); {
	case whole:
		if err := c.gangIsThere(ctx, g); err != nil {
			return reconcile.Result{}, err
		}
	case len(g.want) == 0:
		// Its pods have ended, or are not let go yet: nobody waits.
	case left > 0:
		sooner(left)
	default:
		if err := c.gangTimedOut(ctx, g, why); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: next}, nil
}

// freeMembers takes back what the gang's claims have.
func (c *Controller) freeMembers(ctx context.Context, g gang, why string) error {
	annotation := ""
	if c.freedUnused(g) {
		annotation = claimwrite.AnnotationFreedUnused
	}
	for _, claim := range g.have {
		switch freed, err := c.free(ctx, claim, annotation); {
		case err != nil:
			return err
		case !freed:
			continue
		}
		c.inform(claim, ReasonFreed, "The devices on node %s were taken back: gang %s is allocated all or none, and %s", nodeOf(claim.Status.Allocation), g.name.Name, why)
	}
	return nil
}

// giveBackBeside takes back what other claims of the pods have that wait for the
// gang.
func (c *Controller) giveBackBeside(ctx context.Context, g gang) error {
	for _, claim := range g.want {
		why := fmt.Sprintf("claim %s of the same pod is of gang %s, which waits", claim.Name, g.name.Name)
		for _, pod := range c.Consumers.Of(claim).Pods {
			if err := c.giveBack(ctx, pod, claim, why); err != nil {
				return err
			}
		}
	}
	return nil
}

// freedUnused tells whether the gang has a claim that was freed since no pod came
// for it. Then the others wait for their pods, too: they could not be allocated
// without it, and would be reported as waiting all the time.
func (c *Controller) freedUnused(g gang) bool {
	return slices.ContainsFunc(g.members, func(claim *resourceapi.ResourceClaim) bool {
		return claim.Status.Allocation == nil && claim.Annotations[claimwrite.AnnotationFreedUnused] != "" && !c.wanted(claim)
	})
}

// resume goes on with a plan of which not all writes are known to be done.
func (c *Controller) resume(ctx context.Context, plan *gangplan.Plan) error {
	uids := make([]types.UID, len(plan.Members))
	for i, member := range plan.Members {
		uids[i] = member.UID
		if err := c.settle(ctx, member.UID); err != nil {
			return err
		}
	}
	if !c.memory.seize(uids...) {
		return fmt.Errorf("gang %s: %w", plan.Gang, errBusy)
	}
	defer c.memory.release(uids...)
	return c.carryOut(ctx, plan)
}

// sameDevices tells whether two allocations give the same devices.
func sameDevices(a, b *resourceapi.AllocationResult) bool {
	return slices.EqualFunc(a.Devices.Results, b.Devices.Results, func(a, b resourceapi.DeviceRequestAllocationResult) bool {
		return a.Driver == b.Driver && a.Pool == b.Pool && a.Device == b.Device
	})
}
