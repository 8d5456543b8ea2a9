package explain

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

const (
	// defaultAfter is how long a claim waits before it is looked into.
	defaultAfter = 10 * time.Second
	// longestPause is the most that passes until a claim is looked into again.
	longestPause = 10 * time.Minute
	// sayAgain is after how long the same is said again: API servers forget
	// events after an hour.
	sayAgain = 50 * time.Minute
	// answerTime bounds the search for one explanation.
	answerTime = 2 * time.Second
	// perSecond and burst bound how many claims are looked into, all together.
	perSecond, burst = 5, 20
	// rest is how much longer than an explanation took is waited before the next:
	// the process has claims to allocate.
	rest = 4
)

// Recorder writes events. Those of client-go's tools/record do; those of its
// tools/events do not, since they take two texts of one reason for the same.
type Recorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// Options are what [New] needs.
type Options struct {
	Fleet *fleet.Fleet
	// Consumers returns the pods of a claim.
	Consumers func(*resourceapi.ResourceClaim) consumers.Consumers
	Recorder  Recorder
	// After is how long a claim waits before it is looked into; 10 s if it is 0.
	// The pauses between further looks grow from it to 10 minutes.
	After time.Duration
}

// Explainer writes an event for each claim that has waited a while, and another
// when the explanation changes. It is told of claims all the while, and writes
// events as long as Start runs: it is a runnable of a controller manager. It is
// safe for concurrent use.
type Explainer struct {
	options Options
	analyst *Analyst
	limit   flowcontrol.RateLimiter

	mu      sync.Mutex
	waiting map[types.UID]*waiting
	queue   queue
	wake    chan struct{}
}

// waiting is a claim that is not allocated.
type waiting struct {
	claim *resourceapi.ResourceClaim
	// due is when to look into it, place where it is in the queue, and pause
	// what passed since the last time.
	due   time.Time
	place int
	pause time.Duration

	said   Explanation
	saidAt time.Time
}

// New returns an explainer that was told of nothing yet.
func New(options Options) *Explainer {
	if options.After == 0 {
		options.After = defaultAfter
	}
	return &Explainer{
		options: options, analyst: NewAnalyst(options.Fleet.DriverName()),
		limit:   flowcontrol.NewTokenBucketRateLimiter(perSecond, burst),
		waiting: map[types.UID]*waiting{}, wake: make(chan struct{}, 1),
	}
}

// Claim notes what an informer says of a claim. Now is nil for one that is gone,
// before for one that is new. Neither is changed.
func (e *Explainer) Claim(before, now *resourceapi.ResourceClaim) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case now == nil && before == nil:
	case now == nil:
		e.drop(before.UID)
	case now.Status.Allocation != nil || now.DeletionTimestamp != nil:
		e.drop(now.UID)
	case e.waiting[now.UID] != nil:
		e.waiting[now.UID].claim = now
	default:
		// Of other drivers' claims, too: whose a claim is can change with its
		// class. It is asked when it is due.
		w := &waiting{claim: now, pause: e.options.After, due: time.Now().Add(e.options.After)}
		e.waiting[now.UID] = w
		e.queue.add(w)
		if e.queue.first() == w {
			e.poke()
		}
	}
}

func (e *Explainer) drop(uid types.UID) {
	if w := e.waiting[uid]; w != nil {
		delete(e.waiting, uid)
		e.queue.remove(w)
	}
}

func (e *Explainer) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// NeedLeaderElection tells a controller manager that one replica explains.
func (e *Explainer) NeedLeaderElection() bool { return true }

// Start explains until ctx is done.
func (e *Explainer) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		w, pause := e.next()
		if w == nil {
			e.sleep(ctx, pause)
			continue
		}
		if err := e.limit.Wait(ctx); err != nil {
			return nil //nolint:nilerr // ctx is done
		}
		began := time.Now()
		e.explain(ctx, w)
		select {
		case <-ctx.Done():
		case <-time.After(rest * time.Since(began)):
		}
	}
	return nil
}

// sleep waits until the pause is over or a claim is due earlier. A pause of 0
// has no end: nothing waits.
func (e *Explainer) sleep(ctx context.Context, pause time.Duration) {
	var over <-chan time.Time
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-e.wake:
	}
}

// next returns a claim that is due, or how long there is none.
func (e *Explainer) next() (*waiting, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.queue.first()
	if w == nil {
		return nil, 0
	}
	if pause := time.Until(w.due); pause > 0 {
		return nil, pause
	}
	w.pause = min(2*w.pause, max(longestPause, e.options.After))
	w.due = time.Now().Add(w.pause)
	e.queue.fix(w)
	return w, 0
}

func (e *Explainer) explain(ctx context.Context, w *waiting) {
	e.mu.Lock()
	claim := w.claim
	gone := e.waiting[claim.UID] != w
	e.mu.Unlock()
	view := e.options.Fleet.View()
	if gone || !e.analyst.Ours(claim, view) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	found := e.analyst.Explain(limited, claim, view, e.options.Consumers(claim))
	if ctx.Err() != nil || !e.isNews(w, found) {
		return
	}
	kind := corev1.EventTypeNormal
	if found.Warning() {
		kind = corev1.EventTypeWarning
	}
	e.options.Recorder.Event(claim, kind, found.Reason, found.Text)
	klog.FromContext(ctx).V(4).Info("Explained why a claim waits", "claim", klog.KObj(claim), "reason", found.Reason, "text", found.Text)
}

// isNews tells whether the explanation is to be told, and notes it. One of a
// claim that was allocated in the meantime is none.
func (e *Explainer) isNews(w *waiting, found Explanation) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting[w.claim.UID] != w || found == w.said && time.Since(w.saidAt) < sayAgain {
		return false
	}
	w.said, w.saidAt = found, time.Now()
	return true
}
