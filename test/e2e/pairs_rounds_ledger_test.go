package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// ledger follows all claims of a namespace and writes down which physical thing
// is whose. The API server tells every change, in order, so nothing that is
// given twice escapes it, however shortly.
type ledger struct {
	stock *stock

	mu sync.Mutex
	// holder is the claim that has a thing, by the thing's address.
	holder map[string]string
	// has are the things of each claim that exists; none of one that waits.
	has map[string][]string
	// pods are those that exist.
	pods map[string]*corev1.Pod
	// wrong is what must never happen and did.
	wrong []error
	// changed is closed at the next change.
	changed chan struct{}
}

func keepLedger(s *space, of *stock) *ledger {
	s.t.Helper()
	l := &ledger{stock: of, holder: map[string]string{}, has: map[string][]string{}, pods: map[string]*corev1.Pod{}, changed: make(chan struct{})}
	factory := informers.NewSharedInformerFactoryWithOptions(cluster.Client, 0, informers.WithNamespace(s.name))
	claims, pods := factory.Resource().V1().ResourceClaims().Informer(), factory.Core().V1().Pods().Informer()
	_, err := claims.AddEventHandler(handler(l.claim))
	if err == nil {
		_, err = pods.AddEventHandler(handler(l.pod))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	stop := make(chan struct{})
	s.t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	return l
}

// handler calls do with every state of every object.
func handler[T any](do func(object T, gone bool)) cache.ResourceEventHandler {
	pass := func(object any, gone bool) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if typed, ok := object.(T); ok {
			do(typed, gone)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { pass(object, false) },
		UpdateFunc: func(_, object any) { pass(object, false) },
		DeleteFunc: func(object any) { pass(object, true) },
	}
}

func (l *ledger) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) pod(pod *corev1.Pod, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	if l.pods[pod.Name] = pod; gone {
		delete(l.pods, pod.Name)
	}
}

func (l *ledger) claim(claim *resourceapi.ResourceClaim, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	var now []string
	if claim.Status.Allocation != nil && !gone {
		for _, result := range claim.Status.Allocation.Devices.Results {
			things := l.stock.made[result.Device]
			if result.Pool != l.stock.pool || len(things) == 0 {
				l.wrong = append(l.wrong, fmt.Errorf("claim %s was given %s of %s, which is not on its node", claim.Name, result.Device, result.Pool))
			}
			now = append(now, things...)
		}
	}
	before := l.has[claim.Name]
	if len(before) > 0 && len(now) > 0 && !cmp.Equal(before, now) {
		l.wrong = append(l.wrong, fmt.Errorf("claim %s had %v and was given %v", claim.Name, before, now))
	}
	for _, thing := range before {
		delete(l.holder, thing)
	}
	for _, thing := range now {
		if other, taken := l.holder[thing]; taken {
			l.wrong = append(l.wrong, fmt.Errorf("%s was given to claim %s while claim %s has it", thing, claim.Name, other))
		}
		l.holder[thing] = claim.Name
	}
	if l.has[claim.Name] = now; gone {
		delete(l.has, claim.Name)
	}
}

// await waits until check returns nil, looking at every change. It fails at
// once when something has happened that must not.
func (l *ledger) await(ctx context.Context, t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		l.mu.Lock()
		changed, err := l.changed, errors.Join(l.wrong...)
		if err != nil {
			l.mu.Unlock()
			t.Fatal(err)
		}
		err = check()
		l.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never %s: %v", what, err)
		case <-changed:
		case <-time.After(time.Second): // for what no object tells
		}
	}
}

// free are the things that nobody has.
func (l *ledger) free() map[string]bool {
	free := map[string]bool{}
	for _, thing := range slices.Concat(l.stock.gpus, l.stock.vfs) {
		if l.holder[thing] == "" {
			free[thing] = true
		}
	}
	return free
}

// isSettled returns nil when the scheduler is done with all orders, by the name
// of pod and claim: each pod is on its node and has what it asked for, or was
// found unschedulable and nothing that it could have had is free; and claims
// that were deleted have given everything back.
func (l *ledger) isSettled(orders map[string]order) error {
	for _, name := range slices.Sorted(maps.Keys(l.has)) {
		if orders[name] == nil {
			return fmt.Errorf("claim %s was deleted and is still there with %v", name, l.has[name])
		}
	}
	free := l.free()
	for _, name := range slices.Sorted(maps.Keys(orders)) {
		pod := l.pods[name]
		switch {
		case pod == nil:
			return fmt.Errorf("pod %s is not there", name)
		case pod.Spec.NodeName != "" && len(l.has[name]) > 0:
		case len(l.has[name]) > 0:
			return fmt.Errorf("pod %s is on no node, though its claim has %v", name, l.has[name])
		case l.stock.could(free, orders[name]):
			return fmt.Errorf("pod %s waits for %s, and these are free: %v", name, orders[name], slices.Sorted(maps.Keys(free)))
		case !isUnschedulable(pod):
			return fmt.Errorf("the scheduler has not looked at pod %s yet: %+v", name, pod.Status.Conditions)
		}
	}
	return nil
}

func isUnschedulable(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
	})
}
