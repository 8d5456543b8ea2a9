package cniaffinity

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Retries after errors of the API double up to the longest.
const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = 5 * time.Minute
)

// Options are what a [Keeper] needs.
type Options struct {
	Client dynamic.Interface
	// Nodes returns all nodes of the cluster as they are known.
	Nodes func(context.Context) ([]*corev1.Node, error)
	// Events tells about DaemonSets.
	Events  record.EventRecorder
	Metrics *Metrics
	// FirstWait is how long the keeper waits before it writes once more what
	// somebody has reverted for the second time. It doubles with each further time
	// up to LongestWait. What stays for twice that long is not reverted any more.
	// The defaults are 30 s and an hour.
	FirstWait, LongestWait time.Duration
	// Clock is the real one if it is nil.
	Clock clock.PassiveClock
}

// Keeper keeps DaemonSets where they belong. It is safe for concurrent use.
type Keeper struct {
	Options
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]
	sets  toolscache.SharedIndexInformer

	mu     sync.Mutex
	wanted map[types.NamespacedName]v1alpha1.NodeSide

	// Only the worker uses what follows.
	fights map[types.NamespacedName]fight
	teller *teller
}

// New returns a keeper that keeps nothing yet.
func New(options Options) *Keeper {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.FirstWait == 0 {
		options.FirstWait = 30 * time.Second
	}
	if options.LongestWait == 0 {
		options.LongestWait = time.Hour
	}
	k := &Keeper{
		Options: options,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, longestRetry)),
		fights:  map[types.NamespacedName]fight{},
		teller:  newTeller(options.Events, options.Clock),
	}
	// All DaemonSets are watched: those to give back are found by what is written
	// on them.
	k.sets = dynamicinformer.NewFilteredDynamicInformer(options.Client, daemonSets().resource, metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	return k
}

// Configure says which DaemonSets are to be kept from now on. All others get back
// what they had.
func (k *Keeper) Configure(config *v1alpha1.CNIAffinityConfig) {
	wanted := map[types.NamespacedName]v1alpha1.NodeSide{}
	if config != nil {
		for _, entry := range config.DaemonSets {
			for _, set := range entry.Expand() {
				wanted[types.NamespacedName{Namespace: set.Namespace, Name: set.Name}] = set.Nodes
			}
		}
	}
	k.mu.Lock()
	before := k.wanted
	k.wanted = wanted
	k.mu.Unlock()
	for name := range before {
		k.queue.Add(name)
	}
	for name := range wanted {
		k.queue.Add(name)
	}
}

// NodesChanged is to be called when nodes come, go or get other labels.
func (k *Keeper) NodesChanged() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.wanted {
		k.queue.Add(name)
	}
}

// side returns where a DaemonSet is to be kept. Not configured means any nodes.
func (k *Keeper) side(name types.NamespacedName) (side v1alpha1.NodeSide, configured bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	side, configured = k.wanted[name]
	if !configured {
		side = v1alpha1.AnyNodes
	}
	return side, configured
}

// Run keeps the DaemonSets until ctx is done. It can be called once.
func (k *Keeper) Run(ctx context.Context) error {
	registration, err := k.sets.AddEventHandlerWithOptions(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    k.enqueue,
		UpdateFunc: func(_, now any) { k.enqueue(now) },
		DeleteFunc: k.enqueue,
	}, toolscache.HandlerOptions{})
	if err != nil {
		return fmt.Errorf("watch DaemonSets: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { k.sets.RunWithContext(ctx) })
	defer k.queue.ShutDown()
	stop := context.AfterFunc(ctx, k.queue.ShutDown)
	defer stop()
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil // told to stop
	}
	for k.next(ctx) {
	}
	return nil
}

func (k *Keeper) enqueue(object any) {
	if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if set, ok := object.(*unstructured.Unstructured); ok {
		k.queue.Add(types.NamespacedName{Namespace: set.GetNamespace(), Name: set.GetName()})
	}
}

func (k *Keeper) next(ctx context.Context) bool {
	name, down := k.queue.Get()
	if down {
		return false
	}
	defer k.queue.Done(name)
	log := klog.FromContext(ctx).WithValues("daemonSet", klog.KRef(name.Namespace, name.Name))
	again, err := k.look(klog.NewContext(ctx, log), name)
	switch {
	case apierrors.IsConflict(err):
		k.queue.AddRateLimited(name)
	case err != nil && ctx.Err() == nil:
		log.Error(err, "A DaemonSet cannot be kept where it belongs for now")
		k.queue.AddRateLimited(name)
	case again > 0:
		k.queue.AddAfter(name, again)
	default:
		k.queue.Forget(name)
	}
	return true
}
