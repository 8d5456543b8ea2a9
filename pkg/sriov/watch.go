package sriov

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// settle is how long after a first event others are waited for, which come
	// in bursts: a new VF alone raises a dozen.
	settle = 200 * time.Millisecond
	// pause is the time between two looks while events keep coming.
	pause = 500 * time.Millisecond
	// reopen is the time before the kernel is listened to again after that
	// broke off.
	reopen = time.Second
)

// Watch looks for changes until ctx is done, and calls changed when Devices
// would answer differently from its last answer. It looks soon after the kernel
// has announced a change of an interface or a device, when a PF that failed is
// due again, and now and then: the state of an InfiniBand port is announced by
// nobody.
func (f *Family) Watch(ctx context.Context, changed func()) {
	events := make(chan struct{}, 1)
	var listening sync.WaitGroup
	defer listening.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // before the wait
	listening.Go(func() {
		f.listen(ctx, func() {
			select {
			case events <- struct{}{}:
			default: // it is known already
			}
		})
	})
	var told uint64
	for {
		if !f.awaitEvent(ctx, events) {
			return
		}
		if _, err := f.refresh(ctx); err != nil {
			return
		}
		if generation, news := f.news(told); news {
			told = generation
			changed()
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// awaitEvent waits until there is a reason to look. It returns false when ctx is
// done.
func (f *Family) awaitEvent(ctx context.Context, events <-chan struct{}) bool {
	wait := f.opts.Resync
	if next := f.provisioner.NextRetry(); !next.IsZero() {
		wait = min(wait, max(0, time.Until(next)))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-f.wake:
		return true
	case <-events:
		return sleep(ctx, settle)
	}
}

// listen calls notify for each of the kernel's events, and after each time in
// which some may have been missed.
func (f *Family) listen(ctx context.Context, notify func()) {
	for {
		err := f.kernel.Host().Watch(ctx, notify)
		if ctx.Err() != nil {
			return
		}
		klog.FromContext(ctx).Error(err, "Listening to the kernel's events broke off, and is begun anew")
		notify()
		if !sleep(ctx, reopen) {
			return
		}
	}
}

// news tells whether there is an answer that neither Devices gave nor Watch
// announced.
func (f *Family) news(told uint64) (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation := f.latest.generation
	return generation, generation != f.answered && generation != told
}

// sleep returns false when ctx is done first.
func sleep(ctx context.Context, how time.Duration) bool {
	timer := time.NewTimer(how)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
