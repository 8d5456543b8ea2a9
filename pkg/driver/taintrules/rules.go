package taintrules

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	resourceinformers "k8s.io/client-go/informers/resource/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
)

const (
	// kind is what rules are called in the API.
	kind = "devicetaintrules"
	// askEvery is how often the API server is asked whether it serves rules: it
	// may have been upgraded, or replaced by one that does not. As long as it has
	// never answered, it is asked again after askAgain.
	askEvery = time.Minute
	askAgain = time.Second
	// jitter keeps the plugins of many nodes from asking at the same time.
	jitter = 0.2
)

// Rules are the rules of the cluster as seen from one pool of devices.
type Rules struct {
	client       kubernetes.Interface
	driver, pool string
	// known is closed when the API server has said which rules there are.
	known chan struct{}

	mu sync.Mutex
	// informer has the rules; nil where none are served.
	informer resourceinformers.DeviceTaintRuleIndexInformer
	// failure is what was logged the last time.
	failure string
}

// New returns the rules for the devices of a driver's pool. There are none
// before [Rules.Follow].
func New(client kubernetes.Interface, driver, pool string) *Rules {
	return &Rules{client: client, driver: driver, pool: pool, known: make(chan struct{})}
}

// Known is closed when the API server has first said which rules there are, or
// that there are none, or why it does not tell.
func (r *Rules) Known() <-chan struct{} { return r.known }

// Follow watches the rules until ctx is done. It calls changed when those may
// have changed that name a device of the pool.
func (r *Rules) Follow(ctx context.Context, changed func()) {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for ctx.Err() == nil {
		served, err := apiclient.Serves(ctx, r.client, resourceapi.SchemeGroupVersion.WithResource(kind))
		switch {
		case err != nil: // nothing is known, so nothing changes
			r.tell(ctx, err)
		case served && stop == nil:
			klog.FromContext(ctx).V(2).Info("The API server serves DeviceTaintRules: those of a part are published as taints of the whole, too")
			stop = r.watch(ctx, changed)
		case !served && stop != nil:
			klog.FromContext(ctx).Info("The API server serves no DeviceTaintRules any more: their taints are taken back")
			stop()
			stop = nil
			changed()
		}
		if err == nil && !served || err != nil && apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			r.answered() // that there are none, or that it does not tell
		}
		next := askEvery
		if err != nil && !r.hasAnswered() {
			next = askAgain
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Jitter(next, jitter)):
		}
	}
}

// watch begins to watch the rules, and returns what ends that and forgets them.
func (r *Rules) watch(ctx context.Context, changed func()) (stop func()) {
	informer := resourceinformers.NewTypedDeviceTaintRuleInformer(r.client, 0, nil)
	notify := func(rules ...*resourceapi.DeviceTaintRule) {
		if slices.ContainsFunc(rules, r.names) {
			changed()
		}
	}
	_, err := informer.AddTypedEventHandler(resourceinformers.DeviceTaintRuleHandlerFuncs{
		AddFunc: func(rule *resourceapi.DeviceTaintRule) { notify(rule) },
		UpdateFunc: func(before, after *resourceapi.DeviceTaintRule) {
			// Its status tells of evictions.
			if !equality.Semantic.DeepEqual(before.Spec, after.Spec) {
				notify(before, after)
			}
		},
		DeleteFunc: func(gone resourceinformers.DeletedDeviceTaintRule) {
			if gone.OptionalObj == nil {
				changed()
				return
			}
			notify(gone.OptionalObj)
		},
	})
	if err == nil {
		err = informer.SetWatchErrorHandlerWithContext(r.watchFailed)
	}
	if err != nil { // only of an informer that runs already, or has
		r.tell(ctx, err)
		r.answered()
		return func() {}
	}
	r.mu.Lock()
	r.informer = informer
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { informer.RunWithContext(ctx) })
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-informer.HasSyncedChecker().Done():
			r.answered()
		}
	})
	return func() {
		cancel()
		wg.Wait()
		r.mu.Lock()
		r.informer = nil
		r.mu.Unlock()
	}
}

// watchFailed is told why rules could not be listed or watched, which is tried
// again all the time. What was known until then goes on to count.
func (r *Rules) watchFailed(ctx context.Context, _ *cache.Reflector, err error) {
	if apiclient.WatchEnded(err) {
		return
	}
	r.tell(ctx, fmt.Errorf("list and watch %s: %w", kind, err))
	r.answered()
}

// tell logs what is new of a failure.
func (r *Rules) tell(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil || err.Error() == r.failure {
		return
	}
	r.failure = err.Error()
	klog.FromContext(ctx).Error(err, "A DeviceTaintRule of a part may be missing from the taints of the whole, it is tried again; the plugin needs the verbs list and watch for "+kind+"."+resourceapi.GroupName)
}

// answered notes that it is known, as well as can be, which rules there are.
func (r *Rules) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.known:
	default:
		close(r.known)
	}
}

func (r *Rules) hasAnswered() bool {
	select {
	case <-r.known:
		return true
	default:
		return false
	}
}
