package rivals

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// errEnded is why a ledger knows nothing more.
var errEnded = errors.New("the watch of the claims has ended")

// ledger knows from a watch, which tells of all changes in the order in which the
// API server made them, which claim has which device at each moment.
type ledger struct {
	parts func(string) []string
	watch apiwatch.Interface
	// ended is closed when the watch has ended by itself; err then says why.
	ended chan struct{}
	err   error

	mu      sync.Mutex
	holder  map[string]holding
	holds   map[types.UID][]string
	waiting map[string]chan struct{}
	res     Result
	stopped bool
}

// holding is the claim that has a part of a device.
type holding struct {
	uid  types.UID
	name string
}

// watch starts a ledger of a namespace's claims. Stop ends it.
func watch(ctx context.Context, client kubernetes.Interface, namespace string, parts func(string) []string) (*ledger, error) {
	claims := client.ResourceV1().ResourceClaims(namespace)
	there, err := claims.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the claims of namespace %s: %w", namespace, err)
	}
	// An API server with much to do ends watches; this one then goes on where it
	// was, or says that it cannot.
	events, err := watchtools.NewRetryWatcherWithContext(ctx, there.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return claims.Watch(ctx, options)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch the claims of namespace %s: %w", namespace, err)
	}
	l := newLedger(parts)
	l.watch = events
	for i := range there.Items {
		l.set(&there.Items[i])
	}
	go l.run()
	return l, nil
}

func newLedger(parts func(string) []string) *ledger {
	return &ledger{
		parts: parts, ended: make(chan struct{}),
		holder: map[string]holding{}, holds: map[types.UID][]string{}, waiting: map[string]chan struct{}{},
	}
}

func (l *ledger) run() {
	for event := range l.watch.ResultChan() {
		claim, ok := event.Object.(*resourceapi.ResourceClaim)
		switch {
		case !ok:
			l.end(fmt.Errorf("%w: %w", errEnded, apierrors.FromObject(event.Object)))
			return
		case event.Type == apiwatch.Deleted:
			l.drop(claim.UID)
		default:
			l.set(claim)
		}
	}
	l.end(errEnded)
}

func (l *ledger) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.err = err
		close(l.ended)
	}
}

func (l *ledger) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.watch.Stop()
}

// set takes in a claim as it is now.
func (l *ledger) set(claim *resourceapi.ResourceClaim) {
	if claim.Status.Allocation == nil {
		l.drop(claim.UID)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.holds[claim.UID]; known {
		return // an allocation never changes
	}
	l.holds[claim.UID] = nil
	if strings.HasPrefix(claim.Name, "plain-") {
		l.res.ByScheduler++
	} else {
		l.res.ByController++
	}
	for _, result := range claim.Status.Allocation.Devices.Results {
		l.take(holding{claim.UID, claim.Name}, result.Pool, result.Device)
	}
	if allocated, ok := l.waiting[claim.Name]; ok {
		close(allocated)
		delete(l.waiting, claim.Name)
	}
}

// take notes that a claim has a device. Of several parts that another claim has,
// one is enough to tell.
func (l *ledger) take(by holding, pool, device string) {
	told := false
	for _, part := range l.parts(device) {
		key := pool + "/" + part
		if other, taken := l.holder[key]; taken {
			if !told {
				l.res.Twice = append(l.res.Twice, fmt.Sprintf("%s/%s: given to claim %s while claim %s had %s", pool, device, by.name, other.name, part))
			}
			told = true
			continue
		}
		l.holder[key] = by
		l.holds[by.uid] = append(l.holds[by.uid], key)
	}
}

// drop notes that a claim has no devices.
func (l *ledger) drop(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.holds[uid] {
		delete(l.holder, key)
	}
	delete(l.holds, uid)
}

// await returns a channel that is closed when the named claim, which is made
// after this call, is allocated.
func (l *ledger) await(name string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	allocated := make(chan struct{})
	l.waiting[name] = allocated
	return allocated
}

// result returns what was seen, or an error if not all of it was.
func (l *ledger) result() (Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ended:
		return l.res, l.err
	default:
		return l.res, nil
	}
}
