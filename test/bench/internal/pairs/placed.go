package pairs

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// placed counts the pods of a namespace that were seen to have a node.
type placed struct {
	mu    sync.Mutex
	names map[string]bool
	// more is closed, and replaced, when there are more.
	more chan struct{}
}

// watchPlaced watches the pods of a namespace until ctx is done.
func watchPlaced(ctx context.Context, client kubernetes.Interface, namespace string) (*placed, error) {
	p := &placed{names: map[string]bool{}, more: make(chan struct{})}
	informer := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace)).Core().V1().Pods().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    p.note,
		UpdateFunc: func(_, pod any) { p.note(pod) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch the pods of namespace %s: %w", namespace, err)
	}
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("watch the pods of namespace %s: %w", namespace, context.Cause(ctx))
	}
	return p, nil
}

func (p *placed) note(object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[pod.Name] {
		return
	}
	p.names[pod.Name] = true
	close(p.more)
	p.more = make(chan struct{})
}

func (p *placed) now() (int, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names), p.more
}

// await returns when so many pods were seen to have a node.
func (p *placed) await(ctx context.Context, count int) error {
	for {
		got, more := p.now()
		if got >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods have a node: %w", got, count, context.Cause(ctx))
		case <-more:
		}
	}
}
