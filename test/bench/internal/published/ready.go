package published

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// beat is how often each node is said to be alive. A kubelet does it every 10 s;
// after 50 s without, Kubernetes takes a node for unreachable.
const beat = 20 * time.Second

// Hearts say of nodes that they are alive, as their kubelets would.
type Hearts struct {
	client kubernetes.Interface
	stop   context.CancelFunc

	mu     sync.Mutex
	leases []*coordinationv1.Lease
	failed error
	done   chan struct{}
}

// NewHearts starts with no node. Stop ends it; ctx does not.
func NewHearts(ctx context.Context, client kubernetes.Interface) *Hearts {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &Hearts{client: client, stop: cancel, done: make(chan struct{})}
	go h.run(ctx)
	return h
}

// Add makes the named nodes live from now on.
func (h *Hearts) Add(ctx context.Context, names []string) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelism)
	for _, name := range names {
		group.Go(func() error {
			lease, err := h.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(groupCtx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{Label: ""}},
				Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NowMicro())},
			}, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("create the lease of node %s: %w", name, err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.leases = append(h.leases, lease)
			return nil
		})
	}
	return group.Wait()
}

// run renews one lease after the other, so that they are spread over time.
func (h *Hearts) run(ctx context.Context) {
	defer close(h.done)
	for next := 0; ; next++ {
		h.mu.Lock()
		pause := beat
		if len(h.leases) > 0 {
			next %= len(h.leases)
			pause /= time.Duration(len(h.leases))
		}
		pause = min(pause, time.Second)
		h.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := h.renew(ctx, next); err != nil && ctx.Err() == nil {
			h.mu.Lock()
			h.failed = err
			h.mu.Unlock()
		}
	}
}

func (h *Hearts) renew(ctx context.Context, n int) error {
	h.mu.Lock()
	if n >= len(h.leases) {
		h.mu.Unlock()
		return nil
	}
	lease := h.leases[n].DeepCopy()
	h.mu.Unlock()
	lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
	renewed, err := h.client.CoordinationV1().Leases(lease.Namespace).Update(ctx, lease, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("renew the lease of node %s: %w", lease.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leases[n] = renewed
	return nil
}

// Stop ends the nodes' lives, and returns what went wrong with them last.
func (h *Hearts) Stop() error {
	h.stop()
	<-h.done
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// readyNode is a node like [lifelessNode] whose kubelet seems to be alive.
func readyNode(name string) *corev1.Node {
	node := lifelessNode(name)
	node.Spec.Taints = nil
	for i := range node.Status.Conditions {
		c := &node.Status.Conditions[i]
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "Published", ""
		if c.Type == corev1.NodeReady {
			c.Status = corev1.ConditionTrue
		}
	}
	return node
}
