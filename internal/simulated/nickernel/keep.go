package nickernel

import (
	"context"
	"time"

	"k8s.io/klog/v2"
)

// retryPause is how long to wait before trying again what failed.
const retryPause = time.Second

// Keep makes VFs anew that were lost with a pod's network namespace, and has
// the links of VFs follow that of their port, until ctx is done.
func (k *Kernel) Keep(ctx context.Context) {
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // it is told already
		}
	}
	go k.watch(ctx, notify)
	notify() // for what changed before the watching began
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if err := k.make(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Not all simulated interfaces could be made; trying again")
			pause(ctx)
			notify()
		}
	}
}

// watch calls notify after each change of an interface of the host.
func (k *Kernel) watch(ctx context.Context, notify func()) {
	for ctx.Err() == nil {
		if err := k.real.Host().Watch(ctx, notify); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The host's interfaces cannot be watched; trying again")
		}
		pause(ctx)
		notify()
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
