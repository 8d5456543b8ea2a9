package allocation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// allocate gives a claim its devices, and with it the other claims of its pods:
// these are of use only on the same node.
func (c *Controller) allocate(ctx context.Context, r Request, claim *resourceapi.ResourceClaim) (reconcile.Result, error) {
	if !c.wanted(claim) {
		c.waiting.remove(r)
		return reconcile.Result{}, c.noteUsed(ctx, claim)
	}
	set := c.together(claim)
	if set.awaits != nil {
		return reconcile.Result{}, nil // the pod's news bring it back
	}
	if len(set.gangs) > 0 {
		// It is placed with the gang, or the gang might find no room beside it.
		c.waiting.remove(r)
		for _, gang := range set.gangs {
			c.enqueue(Request{NamespacedName: gang, Gang: true})
		}
		return reconcile.Result{}, nil
	}
	together := set.claims
	uids := uidsOf(together)
	if !c.memory.seize(uids...) {
		// Whoever is at one of them may not know that this one goes with it.
		return reconcile.Result{RequeueAfter: busyRetry}, nil
	}
	defer c.lookAgain(claim.UID, together)
	defer c.memory.release(uids...)
	// Before the choice: what becomes free during it may be what is missing.
	c.waiting.add(r, claim.CreationTimestamp.Time)
	choices, err := c.choose(func() ([]fit.Choice, error) {
		ask, err := c.ask(klog.FromContext(ctx), together)
		if err != nil {
			return nil, err
		}
		return c.planner.Together(ctx, ask)
	})
	switch {
	case errors.Is(err, fit.ErrNoFit):
		return c.wait(ctx, r, claim, together, err)
	case errors.Is(err, fleet.ErrTaken):
		return reconcile.Result{}, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	case err != nil:
		return c.cannot(r, claim, err), nil
	}
	c.waiting.remove(r)
	c.hopeless.Forget(r)
	return reconcile.Result{}, c.writeAll(ctx, together, choices)
}

// ask is the question where claims could be allocated that need one node.
func (c *Controller) ask(logger klog.Logger, claims []*resourceapi.ResourceClaim) (fit.Ask, error) {
	var filters []func(*corev1.Node) bool
	for _, claim := range claims {
		filter, err := c.nodesOf(logger, claim)
		if err != nil {
			return fit.Ask{}, err
		}
		filters = append(filters, filter)
	}
	return fit.Ask{Claims: claims, Nodes: func(node *corev1.Node) bool {
		for _, fits := range filters {
			if !fits(node) {
				return false
			}
		}
		return true
	}}, nil
}

// nodesOf tells on which nodes a claim is of use: where its pods can run, where
// their other claims are, and where it has not just been sent away from.
func (c *Controller) nodesOf(logger klog.Logger, claim *resourceapi.ResourceClaim) (func(*corev1.Node) bool, error) {
	users := c.Consumers.Of(claim)
	fits := users.Nodes(logger)
	out, _ := c.memory.leftOut(claim.UID)
	var others []*nodeaffinity.NodeSelector
	for _, pod := range users.Pods {
		for _, other := range c.claimsOf(pod) {
			if other.UID == claim.UID || other.Status.Allocation == nil || other.Status.Allocation.NodeSelector == nil {
				continue
			}
			selector, err := nodeaffinity.NewNodeSelector(other.Status.Allocation.NodeSelector)
			if err != nil {
				return nil, fmt.Errorf("claim %s/%s is allocated on nodes that cannot be told: %w", other.Namespace, other.Name, err)
			}
			others = append(others, selector)
		}
	}
	return func(node *corev1.Node) bool {
		if ok, _ := fits(node); !ok || out[node.Name] {
			return false
		}
		for _, selector := range others {
			if !selector.Match(node) {
				return false
			}
		}
		return true
	}, nil
}

// choose makes a plan and takes in the fleet what it gives, all or nothing. One
// plan is made at a time, so that each sees those before.
func (c *Controller) choose(plan func() ([]fit.Choice, error)) ([]fit.Choice, error) {
	c.planning.Lock()
	defer c.planning.Unlock()
	choices, err := plan()
	if err != nil {
		return nil, err
	}
	for i := range choices {
		if err := c.Fleet.Assume(choices[i].Claim, &choices[i].Allocation); err != nil {
			for _, assumed := range choices[:i] {
				c.Fleet.Forget(assumed.Claim)
			}
			return nil, err
		}
	}
	return choices, nil
}

// wait is for claims for which nothing is free. What their pods hold already
// may be in the way: it is given back, so that all of it is chosen anew.
func (c *Controller) wait(ctx context.Context, r Request, claim *resourceapi.ResourceClaim, together []*resourceapi.ResourceClaim, why error) (reconcile.Result, error) {
	klog.FromContext(ctx).V(2).Info("A claim waits", "claim", klog.KObj(claim), "why", why)
	c.hopeless.Forget(r)
	for _, member := range together {
		for _, pod := range c.Consumers.Of(member).Pods {
			why := fmt.Sprintf("claim %s of the same pod does not fit there", claim.Name)
			if err := c.giveBack(ctx, pod, claim, why); err != nil {
				return reconcile.Result{}, err
			}
		}
	}
	if _, until := c.memory.leftOut(claim.UID); !until.IsZero() {
		return reconcile.Result{RequeueAfter: until.Sub(c.Clock.Now()) + time.Millisecond}, nil
	}
	return reconcile.Result{}, nil
}

// cannot tells of a claim that nothing fits as things are. It is tried again when
// it, its pods or a class change, and otherwise less and less often: what the
// fleet has can make a difference only to few selectors, and a search that has
// taken too long would do so each time.
func (c *Controller) cannot(r Request, claim *resourceapi.ResourceClaim, err error) reconcile.Result {
	reason := measure.ReasonInvalidClaim
	if errors.Is(err, context.DeadlineExceeded) {
		reason = measure.ReasonPlanTimeout
	}
	c.waiting.remove(r)
	if c.memory.once(claim.UID, ReasonCannotAllocate) {
		c.Metrics.Failed(claim, reason)
		c.warn(claim, ReasonCannotAllocate, "%v", err)
	}
	return reconcile.Result{RequeueAfter: c.hopeless.When(r)}
}

// writeAll writes what was chosen, all claims at once.
func (c *Controller) writeAll(ctx context.Context, claims []*resourceapi.ResourceClaim, choices []fit.Choice) error {
	errs := make([]error, len(choices))
	var wg sync.WaitGroup
	for i := range choices {
		wg.Go(func() {
			errs[i] = c.write(ctx, claims[i], choices[i].Node, &choices[i].Allocation, choices[i].Why)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// write writes what was taken in the fleet for the claim.
func (c *Controller) write(ctx context.Context, claim *resourceapi.ResourceClaim, node string, allocation *resourceapi.AllocationResult, why string) error {
	if err := c.toGive(node, allocation); err != nil {
		c.Fleet.Forget(claim.UID)
		c.waiting.changed()
		return fmt.Errorf("%w: claim %s/%s: %w", errOutdated, claim.Namespace, claim.Name, err)
	}
	written, err := c.writer.Allocate(ctx, claim, allocation, c.Consumers.Of(claim).On(node))
	switch {
	case errors.Is(err, claimwrite.ErrUnknown):
		c.Metrics.WriteFailed(claim, err)
		c.memory.update(claim.UID, func(r *remembered) { r.unsettled = claim })
		if now := c.claims.get(keyOf(claim)); now == nil || now.UID != claim.UID {
			// It went while it was planned: nobody will look at it again.
			c.Fleet.Forget(claim.UID)
			c.memory.forget(claim.UID)
			c.waiting.changed()
		}
		return err
	case err != nil:
		c.Metrics.WriteFailed(claim, err)
		c.Fleet.Forget(claim.UID)
		c.waiting.changed()
		c.tellRefused(claim, "allocate the claim on node "+node, err)
		return err
	}
	c.Fleet.Wrote(claim.UID, written.ResourceVersion)
	c.feed.observe(written, fromOwnWrite)
	klog.FromContext(ctx).Info("Allocated a claim", "claim", klog.KObj(claim), "node", node, "why", why)
	c.inform(written, ReasonAllocated, "Allocated on node %s: %s", node, why)
	return nil
}

// lookAgain makes the claims that were held be looked at, except the one that is
// being looked at.
func (c *Controller) lookAgain(except types.UID, claims []*resourceapi.ResourceClaim) {
	for _, claim := range claims {
		if claim.UID != except {
			c.enqueue(Request{NamespacedName: keyOf(claim)})
		}
	}
}

func uidsOf(claims []*resourceapi.ResourceClaim) []types.UID {
	uids := make([]types.UID, len(claims))
	for i, claim := range claims {
		uids[i] = claim.UID
	}
	return uids
}
