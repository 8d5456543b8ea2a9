package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// labelsEvery is about how often the node's labels are asked for, where they
// matter: an admin changes them by hand, and the handover that follows takes as
// long. The nodes ask at different times.
//
// They are asked for, not watched: a watch takes the permission to list and
// watch every node of the cluster, of which RBAC cannot make an exception for a
// plugin's own. The answer comes from the API server's cache.
const labelsEvery = 30 * time.Second

// nodeLabels tells whether the node has the labels of a selector.
type nodeLabels struct {
	client   kubernetes.Interface
	node     string
	selector map[string]string

	mu      sync.Mutex
	known   bool
	matches bool
	// silent tells that the last question got no answer.
	silent bool
}

// match tells whether the node has the labels, as far as was asked. It asks only
// if nobody ever has.
func (l *nodeLabels) match(ctx context.Context) (bool, error) {
	if len(l.selector) == 0 {
		return true, nil
	}
	l.mu.Lock()
	known, matches := l.known, l.matches
	l.mu.Unlock()
	if known {
		return matches, nil
	}
	if _, err := l.ask(ctx); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.matches, nil
}

// follow asks again and again until ctx is done, and calls changed when the
// answer is another.
func (l *nodeLabels) follow(ctx context.Context, changed func()) {
	if len(l.selector) == 0 {
		return
	}
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
		// What it could not learn, it logs.
		if news, err := l.ask(ctx); err == nil && news {
			changed()
		}
	}, labelsEvery, 0.2, true)
}

// ask asks the API server, and tells whether the answer is another than before.
func (l *nodeLabels) ask(ctx context.Context) (news bool, err error) {
	limited, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	node, err := l.client.CoreV1().Nodes().Get(limited, l.node, metav1.GetOptions{ResourceVersion: "0"})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("ask for the labels of node %s, which the configuration's managed.nodeSelector needs: %w", l.node, err)
		if !l.silent && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Who gives this node's devices stays as it is")
		}
		l.silent = true
		return false, err
	}
	matches := labels.SelectorFromSet(l.selector).Matches(labels.Set(node.Labels))
	news = !l.known || matches != l.matches
	l.known, l.matches, l.silent = true, matches, false
	if news {
		klog.FromContext(ctx).Info("Labels of the node say who gives its devices", "selector", labels.FormatLabels(l.selector), "match", matches)
	}
	return news, nil
}
