package allocation

import (
	"context"
	"errors"
	"fmt"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// Reconcile looks at one claim or one gang. Writes go on to their end also while
// the controller is being stopped: the next leader begins after that.
func (c *Controller) Reconcile(ctx context.Context, r Request) (reconcile.Result, error) {
	ctx = context.WithoutCancel(ctx)
	result, err := c.lookAt(ctx, r)
	switch {
	case err == nil:
		c.races.Forget(r)
	case isRace(err):
		klog.FromContext(ctx).V(2).Info("Others were faster, trying again", "request", r.NamespacedName, "gang", r.Gang, "err", err)
		return reconcile.Result{RequeueAfter: c.races.When(r)}, nil
	}
	return result, err
}

func (c *Controller) lookAt(ctx context.Context, r Request) (reconcile.Result, error) {
	if r.Gang {
		return c.gang(ctx, r)
	}
	return c.claim(ctx, r)
}

func (c *Controller) claim(ctx context.Context, r Request) (reconcile.Result, error) {
	claim := c.claims.get(r.NamespacedName)
	if claim == nil || claim.DeletionTimestamp != nil {
		c.waiting.remove(r)
		c.hopeless.Forget(r)
		return reconcile.Result{}, nil
	}
	if err := c.settle(ctx, claim.UID); err != nil {
		return reconcile.Result{}, err
	}
	ours, mixed := c.ours(claim)
	if mixed != "" && claim.Status.Allocation == nil && c.memory.once(claim.UID, ReasonMixedClasses) {
		c.Metrics.Failed(claim, measure.ReasonMixedClasses)
		c.warn(claim, ReasonMixedClasses, "request %q is not of a managed class although others are: nobody allocates such a claim; name managed classes in all requests and alternatives, or in none", mixed)
	}
	if !ours {
		c.waiting.remove(r)
		return reconcile.Result{}, nil
	}
	if claim = c.claims.get(r.NamespacedName); claim == nil {
		return reconcile.Result{}, nil
	}
	if claim.Status.Allocation != nil {
		c.waiting.remove(r)
		return c.allocated(ctx, claim)
	}
	if gangOf(claim).Name != "" {
		return reconcile.Result{}, c.noteUsed(ctx, claim)
	}
	return c.allocate(ctx, r, claim)
}

// settle finds out what became of a write to a claim whose answer got lost.
func (c *Controller) settle(ctx context.Context, uid types.UID) error {
	written := c.memory.of(uid).unsettled
	if written == nil {
		return nil
	}
	now, err := c.writer.Settle(ctx, written)
	if err != nil {
		return err
	}
	if now != nil {
		c.feed.observe(now, fromOwnWrite)
	}
	if now == nil || now.Status.Allocation == nil {
		c.Fleet.Forget(uid)
		c.waiting.changed()
	}
	c.memory.update(uid, func(r *remembered) { r.unsettled = nil })
	return nil
}

// allocated looks at a claim that has its devices: whether somebody uses them,
// and whether they are nobody else's.
func (c *Controller) allocated(ctx context.Context, claim *resourceapi.ResourceClaim) (reconcile.Result, error) {
	if freed, err := c.resolveDouble(ctx, claim); freed || err != nil {
		return reconcile.Result{}, err
	}
	node := nodeOf(claim.Status.Allocation)
	wanted := c.Consumers.Of(claim).NodeName()
	elsewhere := wanted != "" && node != "" && wanted != node
	if elsewhere && c.Consumers.Of(claim).NoneOn(node, claim.Status.ReservedFor) {
		// kube-controller-manager reserves a claim for a pod that names its node
		// itself wherever the claim is; such a pod would wait for ever.
		claim = claim.DeepCopy()
		claim.Status.ReservedFor = nil
	}
	if len(claim.Status.ReservedFor) > 0 {
		return reconcile.Result{}, nil
	}
	if elsewhere {
		if freed, err := c.free(ctx, claim, ""); !freed {
			return reconcile.Result{}, err
		}
		c.inform(claim, ReasonFreed, "The devices on node %s were taken back: a pod of the claim is on node %s", node, wanted)
		return reconcile.Result{}, nil
	}
	if users := c.Consumers.Of(claim); c.memory.of(claim.UID).again && len(users.Pods) == 0 && !users.Awaited && gangOf(claim).Name == "" {
		// It was allocated for a pod that had ended already, as became known later.
		if freed, err := c.free(ctx, claim, claimwrite.AnnotationUsed); !freed {
			return reconcile.Result{}, err
		}
		c.inform(claim, ReasonFreed, "The devices on node %s were taken back: the claim has no pod any more, and waits for another", node)
		return reconcile.Result{}, nil
	}
	after, err := durationLabel(claim, v1alpha1.LabelUnusedAfter, c.UnusedAfter)
	if err != nil && c.memory.once(claim.UID, ReasonInvalidLabel) {
		c.warn(claim, ReasonInvalidLabel, "%v; %s is used", err, after)
	}
	if left := c.allocatedAt(claim).Add(after).Sub(c.Clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if c.gangInUse(claim) {
		return reconcile.Result{RequeueAfter: after}, nil
	}
	if len(c.Consumers.Of(claim).Pods) > 0 {
		c.memory.leaveOut(claim.UID, node)
	}
	if freed, err := c.free(ctx, claim, claimwrite.AnnotationFreedUnused); !freed {
		return reconcile.Result{}, err
	}
	c.Metrics.Failed(claim, measure.ReasonFreedUnused)
	c.warn(claim, ReasonFreedUnused, "The devices on node %s were taken back: no pod reserved them for %s; the claim is allocated again for a pod", node, after)
	return reconcile.Result{}, nil
}

func (c *Controller) allocatedAt(claim *resourceapi.ResourceClaim) time.Time {
	if stamp := claim.Status.Allocation.AllocationTimestamp; stamp != nil {
		return stamp.Time
	}
	// API servers before 1.36 drop the timestamp.
	var seen time.Time
	c.memory.update(claim.UID, func(r *remembered) {
		if r.seen.IsZero() {
			r.seen = c.Clock.Now()
		}
		seen = r.seen
	})
	return seen
}

// free takes back an allocation that nobody has reserved. It returns false without
// an error if somebody else is at the claim.
func (c *Controller) free(ctx context.Context, claim *resourceapi.ResourceClaim, annotation string) (bool, error) {
	if !c.memory.seize(claim.UID) {
		return false, nil // whoever is at it makes the claim be looked at again
	}
	defer c.memory.release(claim.UID)
	c.memory.update(claim.UID, func(r *remembered) { r.freeing, r.seen = true, time.Time{} })
	freed, err := c.writer.Free(ctx, claim, annotation)
	if err != nil {
		if !errors.Is(err, claimwrite.ErrUnknown) {
			c.memory.update(claim.UID, func(r *remembered) { r.freeing = false })
		}
		return false, err
	}
	klog.FromContext(ctx).Info("Freed a claim", "claim", klog.KObj(claim), "node", nodeOf(claim.Status.Allocation), "annotation", annotation)
	c.feed.observe(freed, fromOwnWrite)
	return true, nil
}

// noteUsed writes on a claim that has served its pods that it waits for another.
func (c *Controller) noteUsed(ctx context.Context, claim *resourceapi.ResourceClaim) error {
	if !c.memory.of(claim.UID).used || claimwrite.WaitsForPod(claim) {
		return nil
	}
	noted, err := c.writer.WaitForPod(ctx, claim)
	if err != nil {
		return err
	}
	c.feed.observe(noted, fromOwnWrite)
	return nil
}

// wanted tells whether a claim that is not allocated should be: it is new, or
// it has a pod.
func (c *Controller) wanted(claim *resourceapi.ResourceClaim) bool {
	users := c.Consumers.Of(claim)
	switch {
	case claim.DeletionTimestamp != nil, users.Awaited, users.Gated():
		return false
	case len(users.Pods) > 0:
		return true
	}
	return !claimwrite.WaitsForPod(claim) && !c.memory.of(claim.UID).used
}

// durationLabel reads a label that has a duration. With an error it returns the
// default.
func durationLabel(claim *resourceapi.ResourceClaim, label string, otherwise time.Duration) (time.Duration, error) {
	text, ok := claim.Labels[label]
	if !ok {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return otherwise, fmt.Errorf("label %s: %q is no duration above zero such as 5m", label, text)
	}
	return d, nil
}
