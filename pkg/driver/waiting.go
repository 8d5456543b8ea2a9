package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// releaseWait is how long a prepare waits for a device that another claim
	// still holds. Kubelet gives up on a call after 45 s.
	releaseWait = 40 * time.Second
	// releasePoll is how often a waiting prepare looks whether another
	// instance of the plugin has given the device back.
	releasePoll = 100 * time.Millisecond
	// abandonedPoll is how often a waiting prepare asks the API server whether
	// the holder still has the device.
	abandonedPoll = 2 * time.Second
)

// busyError says that another claim has a thing that is needed, or somebody else.
type busyError struct {
	device string
	holder device.Claim
	// other is who has it where that is no claim.
	other string
}

func (e *busyError) Error() string {
	if e.other != "" {
		return fmt.Sprintf("device %q is held by %s", e.device, e.other)
	}
	return fmt.Sprintf("device %q is still prepared for claim %s", e.device, e.holder)
}

// suspicion is what would be odd about a device that is not released.
func (e *busyError) suspicion() string {
	if e.other != "" {
		return "no pod has it as an extended resource and it is still not given back"
	}
	return "that claim's pod is gone and the claim was not unprepared"
}

// prepareWhenFree waits for devices that another claim has not given back yet:
// kubelet unprepares a claim only when all containers of its pod have stopped,
// and the scheduler may give the device away before that. Failing instead
// would send the pod into kubelet's backoff for far longer than the wait.
func (d *Driver) prepareWhenFree(ctx context.Context, a *allocation) (*claimstore.Record, error) {
	if err := faultpoint.At(faultpoint.PrepareReceived); err != nil {
		return nil, err
	}
	if len(a.results) == 0 {
		return nil, errNoDevice
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.options.ReleaseWait, errors.New("gave up waiting"))
	defer cancel()
	if err := d.recovered(ctx); err != nil {
		return nil, err
	}
	var watch *holderWatch
	for {
		freed := d.store.Freed()
		record, err := d.prepareLocked(ctx, a)
		var busy *busyError
		if err == nil || !errors.As(err, &busy) {
			return record, err
		}
		if watch == nil {
			klog.FromContext(ctx).Info("Waiting for a device's release", "device", busy.device, "holder", cmp.Or(busy.other, busy.holder.String()))
			watch = d.watchHolders(ctx, busy)
			// Before the return, and so before the call counts as ended.
			defer func() {
				cancel()
				<-watch.done
			}()
		}
		watch.look(busy)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: waited for its release, and kubelet will try again: if %s, see the plugin's log for why", err, busy.suspicion())
		case <-freed:
		case <-time.After(releasePoll):
		}
	}
}

// holderWatch asks in the background whether the claims that are in the way
// are abandoned, and releases those that are, which all who wait for
// [claimstore.Store.Freed] see. An API server that is slow to answer delays
// nobody who can go on without it.
type holderWatch struct {
	holders chan *busyError
	done    chan struct{}
}

func (d *Driver) watchHolders(ctx context.Context, busy *busyError) *holderWatch {
	w := &holderWatch{holders: make(chan *busyError), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			if busy.other == "" {
				if _, err := d.releaseIfAbandoned(ctx, busy.holder); err != nil && ctx.Err() == nil {
					klog.FromContext(ctx).Error(err, "Cannot tell whether the holder is abandoned", "device", busy.device, "holder", busy.holder)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(abandonedPoll):
			}
			select {
			case <-ctx.Done():
				return
			case busy = <-w.holders:
			}
		}
	}()
	return w
}

// look says who is in the way now. Nothing happens if the last look was a
// moment ago.
func (w *holderWatch) look(busy *busyError) {
	select {
	case w.holders <- busy:
	default:
	}
}
