package deviceplugin

import (
	"context"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"
)

const (
	// retryAfter is the pause after a registration that failed. It doubles up to
	// retryRarely: a kubelet that was stopped may leave its socket, and one that
	// refuses the name of a resource refuses it for ever.
	retryAfter  = time.Second
	retryRarely = 30 * time.Second
)

// registering is how it goes with telling a kubelet of a resource.
type registering struct {
	// kubelet is the socket that was tried. Kubelet makes it anew whenever it
	// starts, and is then told at once.
	kubelet socketID
	// reason is why it failed last.
	reason string
	pause  time.Duration
	next   time.Time
}

// try registers a server if that is due, and returns when to look again at the latest.
func (r *registering) try(ctx context.Context, s *server, every time.Duration) time.Duration {
	// Without a socket there is nothing to register with.
	id, _ := identify(filepath.Join(s.plugin.options.Dir, kubeletSocket))
	if id != r.kubelet {
		*r = registering{kubelet: id}
	}
	if wait := time.Until(r.next); wait > 0 {
		return min(wait, every)
	}
	err := s.register(ctx)
	if err == nil || ctx.Err() != nil {
		*r = registering{kubelet: id}
		return every
	}
	if reason := err.Error(); reason != r.reason {
		r.reason = reason
		klog.FromContext(ctx).Error(err, "Not registered with kubelet, it is tried again")
	}
	r.pause = min(max(2*r.pause, retryAfter), retryRarely)
	r.next = time.Now().Add(r.pause)
	return min(r.pause, every)
}
