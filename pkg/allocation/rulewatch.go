package allocation

import (
	"context"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	resourceinformers "k8s.io/client-go/informers/resource/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
)

const (
	// taintRules is what DeviceTaintRules are called in the API.
	taintRules = "devicetaintrules"
	// askForRules is after how long an API server that serves no DeviceTaintRules
	// is asked again: it may have been upgraded since.
	askForRules = 5 * time.Minute
	// askFor bounds a question, firstAsk is the first pause after one that was not
	// answered.
	askFor   = 5 * time.Second
	firstAsk = time.Second
	// jitter keeps the replicas from asking at the same time.
	jitter = 0.2
)

// ruleWatch brings DeviceTaintRules to the fleet from API servers that serve
// them. Before Kubernetes 1.37 most do not, and claims are allocated all the same.
type ruleWatch struct {
	*Controller
	// recheck has something when the API server may have ceased to serve rules.
	recheck chan struct{}

	mu    sync.Mutex
	known bool
	// failure is what was logged the last time.
	failure string
}

func newRuleWatch(c *Controller) *ruleWatch {
	return &ruleWatch{Controller: c, recheck: make(chan struct{}, 1)}
}

// synced tells whether the API server has said which rules there are, or that
// there are none, or why it does not tell.
func (w *ruleWatch) synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

func (w *ruleWatch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = true
}

// run follows the rules until ctx is done.
func (w *ruleWatch) run(ctx context.Context) {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for pause := firstAsk; ctx.Err() == nil; {
		served, err := apiclient.Serves(ctx, w.Client, resourceapi.SchemeGroupVersion.WithResource(taintRules))
		switch {
		case err != nil:
			w.tell(ctx, err)
		case served && stop == nil:
			stop = w.watch(ctx)
		case !served && stop != nil:
			klog.FromContext(ctx).Info("The API server serves no DeviceTaintRules any more: their taints do not count from now on")
			stop()
			stop = nil
		}
		if err == nil && !served || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			w.answered()
		}
		var again <-chan time.Time // never, while a watch would tell
		switch {
		case err != nil:
			again = time.After(wait.Jitter(pause, jitter))
			pause = min(2*pause, askForRules)
		case !served:
			again = time.After(wait.Jitter(askForRules, jitter))
		default:
			pause = firstAsk
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-w.recheck:
		}
	}
}

// watch begins to watch the rules, and returns what ends that and forgets them.
func (w *ruleWatch) watch(ctx context.Context) (stop func()) {
	informer := resourceinformers.NewTypedDeviceTaintRuleInformer(w.Client, 0, nil)
	handler, err := informer.AddEventHandler(handlerOf(w.set, w.gone))
	if err == nil {
		err = informer.SetWatchErrorHandlerWithContext(w.failed)
	}
	if err != nil { // only of an informer that runs already, or has
		w.tell(ctx, err)
		w.answered()
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { informer.RunWithContext(ctx) })
	wg.Go(func() {
		if toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			w.answered()
		}
	})
	return func() {
		cancel()
		wg.Wait()
		for _, name := range informer.GetStore().ListKeys() {
			w.drop(name)
		}
	}
}

func (w *ruleWatch) set(rule *resourceapi.DeviceTaintRule) {
	if w.Fleet.SetTaintRule(rule) {
		w.waiting.changed()
	}
}

func (w *ruleWatch) gone(rule *resourceapi.DeviceTaintRule) { w.drop(rule.Name) }

func (w *ruleWatch) drop(name string) {
	if w.Fleet.DeleteTaintRule(name) {
		w.waiting.changed()
	}
}

// failed is told why rules could not be listed or watched, which is tried again
// all the time. What was known until then goes on to count.
func (w *ruleWatch) failed(ctx context.Context, _ *toolscache.Reflector, err error) {
	switch {
	case apiclient.WatchEnded(err):
		return
	case apierrors.IsNotFound(err):
		select {
		case w.recheck <- struct{}{}:
		default:
		}
		return
	}
	w.tell(ctx, fmt.Errorf("list and watch %s: %w", taintRules, err))
	if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		w.answered()
	}
}

// tell logs what is new of a failure.
func (w *ruleWatch) tell(ctx context.Context, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil || err.Error() == w.failure {
		return
	}
	w.failure = err.Error()
	klog.FromContext(ctx).Error(err, "Devices may be given away although a DeviceTaintRule taints them; it is tried again. The controller needs the verbs list and watch for "+taintRules+"."+resourceapi.GroupName)
}
