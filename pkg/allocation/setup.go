package allocation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// Delays of retries after errors of the API: they double up to the longest.
const (
	firstRetry   = 5 * time.Millisecond
	longestRetry = 30 * time.Second
	// busyRetry is after how long a claim is looked at again that another one is
	// in the way of: writes take some milliseconds.
	busyRetry = 100 * time.Millisecond
	// Claims for which nothing can fit as things are.
	firstHopeless   = time.Second
	longestHopeless = 10 * time.Minute
)

// syncTimeout is how long a new leader may take to learn what the cluster has. An
// API server that is slow for all is no reason to begin from the start.
const syncTimeout = 30 * time.Minute

// Metrics count what the controller sees and does.
type Metrics interface {
	// Claim is told of each change of a claim; before is nil for a new one, now
	// for one that is gone.
	Claim(before, now *resourceapi.ResourceClaim)
	ClassGone(name string)
	Failed(claim *resourceapi.ResourceClaim, reason measure.Reason)
	WriteFailed(claim *resourceapi.ResourceClaim, err error)
}

// Observer is told of each change of a claim, as [Metrics] are.
type Observer interface {
	Claim(before, now *resourceapi.ResourceClaim)
}

// Options are what a [Controller] needs.
type Options struct {
	DriverName string
	// Namespace is the controller's own, in which it keeps plans of gangs.
	Namespace string
	Client    kubernetes.Interface
	Fleet     *fleet.Fleet
	// Consumers knows the pods of claims; it is fed here.
	Consumers *consumers.Index
	Metrics   Metrics
	// Observer, if not nil, is told of claims as Metrics are.
	Observer Observer
	Events   record.EventRecorder
	// UnusedAfter is how long a claim may be allocated before a pod has reserved
	// it, unless its label says otherwise.
	UnusedAfter time.Duration
	// GangTimeout is how long a gang may wait before that is reported, unless
	// its label says otherwise.
	GangTimeout time.Duration
	// TopologyLabel is a label of nodes; a gang gets nodes with one value of
	// it. Empty: any nodes.
	TopologyLabel string
	// Workers is how many claims and gangs are written at the same time.
	Workers int
	// Clock is the real one if it is nil.
	Clock clock.PassiveClock
	// Name of the controller in its manager. Two in one process, as in tests,
	// have different ones.
	Name string
}

// Controller allocates claims while its manager leads. It is safe for concurrent
// use.
type Controller struct {
	Options
	planner *fit.Planner
	classes *classes.Reader
	claims  *claims
	writer  *claimwrite.Writer
	plans   *gangplan.Store
	feed    *feed

	// queue is nil until this controller leads.
	queue atomic.Pointer[queue]
	// planning is held while devices are chosen and taken in the fleet.
	planning sync.Mutex
	waiting  *waiting
	memory   *memory
	// unfinished are plans of gangs of which not all writes are known to be done.
	unfinished plansUnderWay
	// races and hopeless say when a claim or gang is tried again for which others
	// were faster, and for which nothing can fit.
	races, hopeless workqueue.TypedRateLimiter[Request]
}

type queue struct {
	workqueue.TypedRateLimitingInterface[Request]
}

// Request is a claim or a gang that somebody should look at.
type Request struct {
	types.NamespacedName
	// Gang tells that the name is that of a gang.
	Gang bool
}

// Setup adds the controller to a manager, whose cache must have been made with
// [CacheOptions].
func Setup(ctx context.Context, mgr manager.Manager, options Options) (*Controller, error) {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	c := &Controller{
		Options: options,
		planner: fit.New(options.Fleet),
		classes: classes.NewReader(options.DriverName),
		claims:  newClaims(),
		writer:  claimwrite.New(options.Client, options.Clock),
		plans:   gangplan.NewStore(options.Client, options.Namespace),
		memory:  newMemory(options.Clock),

		unfinished: newPlansUnderWay(),
		races:      workqueue.NewTypedItemExponentialFailureRateLimiter[Request](firstRetry, longestRetry),
		hopeless:   workqueue.NewTypedItemExponentialFailureRateLimiter[Request](firstHopeless, longestHopeless),
	}
	c.waiting = newWaiting(options.Clock, c.enqueue)
	var err error
	if c.feed, err = newFeed(ctx, c, mgr); err != nil {
		return nil, err
	}
	if err := mgr.Add(c.feed); err != nil {
		return nil, fmt.Errorf("add the watch of ResourceSlices: %w", err)
	}
	ctrl, err := controller.NewTyped(options.Name, mgr, controller.TypedOptions[Request]{
		Reconciler:              c,
		MaxConcurrentReconciles: options.Workers,
		CacheSyncTimeout:        syncTimeout,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[Request](firstRetry, longestRetry),
	})
	if err != nil {
		return nil, fmt.Errorf("make the controller of claims: %w", err)
	}
	if err := ctrl.Watch(&lead{c}); err != nil {
		return nil, fmt.Errorf("add the source of claims: %w", err)
	}
	return c, nil
}

// enqueue asks for a look at a claim or a gang. It does nothing before this
// controller leads: then it looks at everything.
func (c *Controller) enqueue(r Request) {
	if q := c.queue.Load(); q != nil {
		q.Add(r)
	}
}

// leads tells whether this controller has become the leader.
func (c *Controller) leads() bool { return c.queue.Load() != nil }

// event tells users about a claim.
func (c *Controller) event(claim *resourceapi.ResourceClaim, kind string, reason Reason, format string, args ...any) {
	c.Events.Eventf(claim, kind, string(reason), format, args...)
}

func (c *Controller) warn(claim *resourceapi.ResourceClaim, reason Reason, format string, args ...any) {
	c.event(claim, corev1.EventTypeWarning, reason, format, args...)
}

func (c *Controller) inform(claim *resourceapi.ResourceClaim, reason Reason, format string, args ...any) {
	c.event(claim, corev1.EventTypeNormal, reason, format, args...)
}
