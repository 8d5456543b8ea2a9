package allocation

import (
	"context"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
)

// listPage is how many claims a new leader reads at a time.
const listPage = 500

// firstRead is the first pause after the API server could not be read.
const firstRead = 500 * time.Millisecond

// lead is what happens when this controller becomes the leader: it makes sure
// that it knows all that its predecessor wrote before it chooses anything.
type lead struct{ *Controller }

// Start implements [source.TypedSource].
func (l *lead) Start(_ context.Context, q workqueue.TypedRateLimitingInterface[Request]) error {
	l.queue.Store(&queue{q})
	return nil
}

// String is its name in messages.
func (l *lead) String() string { return "claims" }

// WaitForSync implements [source.TypedSyncingSource]. No claim is looked at
// before it returns.
func (l *lead) WaitForSync(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	if !toolscache.WaitForCacheSync(ctx.Done(), l.feed.handled...) {
		return fmt.Errorf("wait for what the cluster has: %w", context.Cause(ctx))
	}
	// The API server may be in trouble for longer than one request. To end here
	// would only make somebody else ask it the same.
	if err := untilRead(ctx, l.catchUp); err != nil {
		return err
	}
	var plans []gangplan.Plan
	err := untilRead(ctx, func(ctx context.Context) (err error) {
		plans, err = l.readPlans(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for i := range plans {
		l.adopt(logger, &plans[i])
	}
	l.tellOfOldServer(ctx)
	all := l.claims.all()
	for _, claim := range all {
		l.feed.look(claim)
	}
	logger.Info("Allocating claims", "claims", len(all), "plansOfGangs", len(plans))
	return nil
}

// untilRead tries again with growing pauses until it works. It fails only when
// ctx is done.
func untilRead(ctx context.Context, read func(context.Context) error) error {
	pauses := wait.Backoff{Duration: firstRead, Factor: 2, Jitter: jitter, Steps: math.MaxInt32, Cap: longestRetry}
	for {
		err := read(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		klog.FromContext(ctx).Error(err, "Cannot begin to allocate claims yet, trying again")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pauses.Step()):
		}
	}
}

// tellOfOldServer logs why no claim is going to be allocated by an API server that
// does not keep what marks devices as the controller's.
func (l *lead) tellOfOldServer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	logger := klog.FromContext(ctx)
	info, err := l.Client.Discovery().ServerVersionWithContext(ctx)
	if err != nil {
		logger.V(2).Info("The API server does not tell its version", "err", err)
		return
	}
	server, err := version.ParseGeneric(info.GitVersion)
	if err != nil || server.AtLeast(version.MajorMinor(1, 36)) || l.Fleet.View().AnyManaged() {
		return
	}
	logger.Info("Nothing can be allocated: no node has devices that are the controller's to give, and Kubernetes keeps the taint that marks them since 1.36. Before, use plain classes, of which kube-scheduler allocates claims", "kubernetes", info.GitVersion)
}

// readPlans reads the plans that a predecessor has left, and removes those that
// cannot be read: written by another release, or not by us. What such a plan has
// begun is found in the claims: a gang that is allocated in part is completed or
// freed like one that has lost a member.
func (l *lead) readPlans(ctx context.Context) ([]gangplan.Plan, error) {
	plans, unreadable, err := l.plans.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range unreadable {
		logger := klog.LoggerWithValues(klog.FromContext(ctx), "configMap", klog.KObj(u.ConfigMap))
		logger.Error(u.Err, "Removing a gang's plan that cannot be read; its claims are allocated or freed as they are found")
		l.Events.Eventf(u.ConfigMap, corev1.EventTypeWarning, string(ReasonPlanUnreadable),
			"The plan of a gang cannot be read and is removed; what claims of the gang have is completed, or taken back: %v", u.Err)
		if err := l.plans.Discard(ctx, u); err != nil {
			// It is in nobody's way: a new plan of the gang takes its place.
			logger.Error(err, "An unreadable plan is left")
		}
	}
	return plans, nil
}

// catchUp returns when the watch has told of every claim as it is in the API
// now: what the predecessor wrote last may not have come yet.
func (l *lead) catchUp(ctx context.Context) error {
	options := metav1.ListOptions{Limit: listPage}
	l.feed.rememberGone(true)
	defer l.feed.rememberGone(false)
	for {
		page, err := l.Client.ResourceV1().ResourceClaims(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return fmt.Errorf("read all claims before allocating any: %w", err)
		}
		for i := range page.Items {
			// What is newer than what the watch has told of is taken as it is.
			page.Items[i].ManagedFields = nil
			l.feed.observe(&page.Items[i], fromList)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

// adopt takes what an unfinished plan gives, so that nothing else is given the
// same. A plan that cannot be carried out any more is undone when its gang is
// looked at.
func (l *lead) adopt(logger klog.Logger, plan *gangplan.Plan) {
	for i := range plan.Members {
		member := &plan.Members[i]
		claim := l.claims.get(types.NamespacedName{Namespace: plan.Gang.Namespace, Name: member.Name})
		if claim == nil || claim.UID != member.UID || claim.Status.Allocation != nil {
			continue
		}
		if err := l.Fleet.Assume(member.UID, &member.Allocation); err != nil {
			logger.Info("A gang's plan cannot be carried out any more", "gang", plan.Gang, "claim", klog.KObj(claim), "err", err)
		}
	}
	l.unfinished.put(plan)
	l.enqueue(Request{NamespacedName: plan.Gang, Gang: true})
}
