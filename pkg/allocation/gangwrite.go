package allocation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

const (
	// writesAtOnce is how many claims of a gang are written at the same time.
	writesAtOnce = 16
	// writeAttempts is how often a claim of a gang is written that others change
	// in between.
	writeAttempts = 5
	// Pauses after the API server has refused a claim of a gang.
	firstPause   = time.Second
	longestPause = 10 * time.Minute
	// longestFlight is how long a gang keeps what it has been given while slices
	// that have the rest are being updated. That takes milliseconds, unless who
	// publishes them ends in the middle.
	longestFlight = time.Minute
)

// errLost tells that a plan cannot be carried out any more.
var errLost = errors.New("the gang's plan cannot be carried out")

func newPlansUnderWay() plansUnderWay {
	return plansUnderWay{
		plans: map[types.NamespacedName]*gangplan.Plan{}, told: map[types.NamespacedName]bool{},
		refused: map[types.NamespacedName]refusal{}, flights: map[types.NamespacedName]time.Time{},
	}
}

// plansUnderWay are plans that are stored, by gang.
type plansUnderWay struct {
	mu    sync.Mutex
	plans map[types.NamespacedName]*gangplan.Plan
	// told are gangs whose users know that they wait.
	told map[types.NamespacedName]bool
	// refused are gangs of which the API server has refused a claim.
	refused map[types.NamespacedName]refusal
	// flights is since when slices with what a plan gives are being updated.
	flights map[types.NamespacedName]time.Time
}

// refusal is why a gang is not tried again before a time. The pause doubles with
// each refusal.
type refusal struct {
	why   error
	until time.Time
	pause time.Duration
}

func (p *plansUnderWay) get(gang types.NamespacedName) *gangplan.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plans[gang]
}

func (p *plansUnderWay) put(plan *gangplan.Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans[plan.Gang] = plan
}

func (p *plansUnderWay) done(gang types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.plans, gang)
	delete(p.flights, gang)
}

// inFlight notes that slices with what the gang's plan gives are being updated,
// and returns whether that has been so for too long.
func (p *plansUnderWay) inFlight(gang types.NamespacedName, now time.Time) (tooLong bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flights[gang].IsZero() {
		p.flights[gang] = now
	}
	return now.Sub(p.flights[gang]) >= longestFlight
}

// tell returns whether the gang's users do not know yet that it waits; they do
// from then on, until forget.
func (p *plansUnderWay) tell(gang types.NamespacedName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told[gang] {
		return false
	}
	p.told[gang] = true
	return true
}

func (p *plansUnderWay) forget(gang types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.told, gang)
}

// gone drops all that is known of a gang that has no claims any more.
func (p *plansUnderWay) gone(gang types.NamespacedName) {
	p.forget(gang)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.refused, gang)
}

// refuse notes that the API server did not take what was planned for the gang.
func (p *plansUnderWay) refuse(gang types.NamespacedName, why error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pause := min(max(2*p.refused[gang].pause, firstPause), longestPause)
	p.refused[gang] = refusal{why: why, until: now.Add(pause), pause: pause}
}

// refusal returns for how long the gang is not tried, and why; nil if it is.
func (p *plansUnderWay) refusal(gang types.NamespacedName, now time.Time) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refused[gang]
	if left := r.until.Sub(now); left > 0 {
		return left, r.why
	}
	return 0, nil
}

// carryOut gives each claim of a plan what the plan says, or takes all of it
// back if one of them cannot be given it any more. Until either is done, the
// plan stays stored.
func (c *Controller) carryOut(ctx context.Context, plan *gangplan.Plan) error {
	errs := make([]error, len(plan.Members))
	written := make([]bool, len(plan.Members))
	slots := make(chan struct{}, writesAtOnce)
	var wg sync.WaitGroup
	for i := range plan.Members {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			written[i], errs[i] = c.writeMember(ctx, plan.Gang, &plan.Members[i])
		})
	}
	wg.Wait()
	err := join(errs)
	if errors.Is(err, errLost) {
		if slices.ContainsFunc(errs, refusedForGood) {
			c.unfinished.refuse(plan.Gang, err, c.Clock.Now())
		}
		return c.undo(ctx, plan, err)
	}
	if err != nil {
		return err
	}
	if err := c.plans.Delete(ctx, plan.Gang); err != nil {
		return err
	}
	c.unfinished.done(plan.Gang)
	c.tellAllocated(plan, written)
	c.lookAtMembers(plan)
	return nil
}

// writeMember writes the allocation of one claim, whatever else changes in the
// claim meanwhile. It returns whether it had to.
func (c *Controller) writeMember(ctx context.Context, gang types.NamespacedName, member *gangplan.Member) (bool, error) {
	key := types.NamespacedName{Namespace: gang.Namespace, Name: member.Name}
	for range writeAttempts {
		claim := c.claims.get(key)
		if claim == nil || claim.UID != member.UID || claim.DeletionTimestamp != nil {
			return false, fmt.Errorf("%w: claim %s is gone", errLost, member.Name)
		}
		if claim.Status.Allocation != nil {
			if !sameDevices(claim.Status.Allocation, &member.Allocation) {
				return false, fmt.Errorf("%w: claim %s was given something else", errLost, member.Name)
			}
			return false, nil
		}
		if err := c.hold(member); errors.Is(err, errInFlight) && !c.unfinished.inFlight(gang, c.Clock.Now()) {
			return false, fmt.Errorf("claim %s: %w", member.Name, err)
		} else if err != nil {
			return false, fmt.Errorf("%w: claim %s: %w", errLost, member.Name, err)
		}
		done, err := c.writer.Allocate(ctx, claim, &member.Allocation, c.Consumers.Of(claim).On(member.Node))
		if err == nil {
			c.Fleet.Wrote(claim.UID, done.ResourceVersion)
			c.feed.observe(done, fromOwnWrite)
			return true, nil
		}
		c.Metrics.WriteFailed(claim, err)
		if errors.Is(err, claimwrite.ErrUnknown) {
			c.memory.update(claim.UID, func(r *remembered) { r.unsettled = claim })
			return false, err
		}
		if refusedForGood(err) {
			c.tellRefused(claim, "allocate the claim on node "+member.Node, err)
			return false, fmt.Errorf("%w: %w", errLost, err)
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, err
		}
		if err := c.reread(ctx, claim); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("claim %s of a gang changes all the time", member.Name)
}

// refusedForGood tells whether the API server would not take the same from us a
// little later. A gang must not hold some devices until it does.
func refusedForGood(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) }

// tellRefused tells the users of a claim, once, what the API server would not take.
func (c *Controller) tellRefused(claim *resourceapi.ResourceClaim, doing string, err error) {
	if refusedForGood(err) && c.memory.once(claim.UID, ReasonWriteRefused) {
		c.warn(claim, ReasonWriteRefused, "The API server refuses to %s; it is tried again: %v", doing, err)
	}
}

// hold makes sure that what the plan gives a claim is there, is ours to give,
// and is nobody else's.
func (c *Controller) hold(member *gangplan.Member) error {
	if err := c.toGive(member.Node, &member.Allocation); err != nil {
		return err
	}
	return c.Fleet.Assume(member.UID, &member.Allocation)
}

// reread brings a claim up to date that the watch may tell of later.
func (c *Controller) reread(ctx context.Context, claim *resourceapi.ResourceClaim) error {
	now, err := c.Client.ResourceV1().ResourceClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && now.UID != claim.UID {
		c.feed.claimGone(claim)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read claim %s/%s again: %w", claim.Namespace, claim.Name, err)
	}
	c.feed.observe(now, fromOwnWrite)
	return nil
}

// undo takes back what a plan gave, except from claims that pods use already.
func (c *Controller) undo(ctx context.Context, plan *gangplan.Plan, why error) error {
	klog.FromContext(ctx).Info("Taking a gang's allocation back", "gang", plan.Gang, "why", why)
	for i := range plan.Members {
		member := &plan.Members[i]
		c.Fleet.Forget(member.UID)
		claim := c.claims.get(types.NamespacedName{Namespace: plan.Gang.Namespace, Name: member.Name})
		if claim == nil || claim.UID != member.UID || claim.Status.Allocation == nil || len(claim.Status.ReservedFor) > 0 ||
			!sameDevices(claim.Status.Allocation, &member.Allocation) {
			continue
		}
		c.memory.update(claim.UID, func(r *remembered) { r.freeing = true })
		freed, err := c.writer.Free(ctx, claim, "")
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return errors.Join(err, c.reread(ctx, claim))
		}
		c.feed.observe(freed, fromOwnWrite)
		c.Metrics.Failed(claim, measure.ReasonGangUndone)
		c.warn(claim, ReasonGangUndone, "The devices on node %s were taken back, since a gang gets all or none: %v", member.Node, why)
	}
	if err := c.plans.Delete(ctx, plan.Gang); err != nil {
		return err
	}
	c.unfinished.done(plan.Gang)
	c.lookAtMembers(plan)
	c.waiting.changed()
	return nil
}

// lookAtMembers makes the gang and its claims be looked at again.
func (c *Controller) lookAtMembers(plan *gangplan.Plan) {
	c.enqueue(Request{NamespacedName: plan.Gang, Gang: true})
	for _, member := range plan.Members {
		c.enqueue(Request{NamespacedName: types.NamespacedName{Namespace: plan.Gang.Namespace, Name: member.Name}})
	}
}

func (c *Controller) tellAllocated(plan *gangplan.Plan, written []bool) {
	nodes, size := map[string]bool{}, 0
	for _, member := range plan.Members {
		nodes[member.Node] = true
		claim := c.claims.get(types.NamespacedName{Namespace: plan.Gang.Namespace, Name: member.Name})
		if claim != nil && gangOf(claim) == plan.Gang { // the others are of its pods
			size++
		}
	}
	of := "a claim of gang " + plan.Gang.Name
	if size > 1 {
		of = fmt.Sprintf("%d claims of gang %s are on %s", size, plan.Gang.Name, shortList(slices.Sorted(maps.Keys(nodes)), ", "))
	}
	for i, member := range plan.Members {
		claim := c.claims.get(types.NamespacedName{Namespace: plan.Gang.Namespace, Name: member.Name})
		if claim != nil && written[i] {
			c.inform(claim, ReasonAllocated, "Allocated on node %s: %s; %s", member.Node, member.Why, of)
		}
	}
}
