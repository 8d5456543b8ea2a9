package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"k8s.io/klog/v2"
)

const (
	// askAgain is the pause before the API server is asked again what it offers to
	// claims. It doubles while the answer changes nothing, up to askRarely.
	askAgain  = time.Second
	askRarely = 10 * time.Second
)

// notSaid is the reason of all devices while the API server does not answer. The
// texts of its errors name ports and streams, which are others each time.
const notSaid = "the API server has not said yet whether claims are offered it"

// acquireWhenDue takes what is to be served here, once a step has found that
// something is not held, until ctx is done. Steps do not wait for it: the API server
// of a node that is cut off does not answer for a long time. Nothing but the pause
// has it asked again, however many steps there are.
func (p *Plugin) acquireWhenDue(ctx context.Context, published Published) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.lacking:
		}
		pause := askAgain
		for len(p.lacks()) > 0 {
			taken, ends := p.acquire(ctx, published)
			if taken {
				pause = askAgain
			}
			wait := pause
			if !ends.IsZero() {
				wait = min(wait, max(0, time.Until(ends)))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			pause = min(2*pause, askRarely)
		}
	}
}

// lacks returns the devices that are to be served here and are not held.
func (p *Plugin) lacks() (missing items) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.all {
		if i.wanted && !p.hasAll(i) {
			missing = append(missing, i)
		}
	}
	return missing
}

// acquire takes the devices that are to be served here and are free, and notes why
// it could not have others. It tells whether it has taken any, and when the first of
// those that settle has done so; zero if none does.
func (p *Plugin) acquire(ctx context.Context, published Published) (taken bool, ends time.Time) {
	offered, err := published(ctx)
	if ctx.Err() != nil {
		return false, ends
	}
	p.stepping.Lock()
	defer p.stepping.Unlock()
	p.answered(ctx, err)
	reasons := map[string]string{}
	for _, i := range p.lacks() {
		why := errors.New(notSaid)
		if err == nil {
			why = p.acquireOne(ctx, i, offered)
		}
		if why == nil {
			taken = true
			continue
		}
		if e := (*settlingError)(nil); errors.As(why, &e) && !e.until.IsZero() && (ends.IsZero() || e.until.Before(ends)) {
			ends = e.until
		}
		reasons[i.id] = why.Error()
		p.tell(ctx, i, why.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if taken || !maps.Equal(p.reasons, reasons) {
		signal(p.due) // for kubelet to be told
	}
	p.reasons = reasons
	return taken, ends
}

// answered logs once that the API server does not answer.
func (p *Plugin) answered(ctx context.Context, err error) {
	if err != nil && !p.unanswered {
		klog.FromContext(ctx).Error(err, "The API server does not say which devices claims are offered: no more devices are served by the device plugin until it does")
	}
	p.unanswered = err != nil
}

// acquireOne takes a device, or says why that must wait.
func (p *Plugin) acquireOne(ctx context.Context, i *item, offered map[string]bool) error {
	if err := p.settles(i, offered); err != nil {
		return err
	}
	if err := p.take(ctx, i); err != nil {
		return err
	}
	p.settleAnew(i.Occupies...)
	return nil
}

// settleAnew has things settle again once they are nobody's: another instance, which
// is to serve claims, may give back what is held and offer it.
func (p *Plugin) settleAnew(things ...string) {
	for _, thing := range things {
		delete(p.clearSince, thing)
	}
}

// settlingError says that a device is left alone, so that claims that were allocated
// it are prepared. Its text stays the same until there is other news.
type settlingError struct {
	// until is zero while the device is still offered to claims.
	until  time.Time
	settle time.Duration
}

func (e *settlingError) Error() string {
	if e.until.IsZero() {
		return fmt.Sprintf("claims are still offered it by a ResourceSlice: it is served %s (devicePlugin.settle) after that has ended", e.settle)
	}
	return fmt.Sprintf("claims may have been offered it a moment ago: it is served from %s on, after %s (devicePlugin.settle)", e.until.UTC().Format(time.RFC3339), e.settle)
}

// settles returns an error as long as a device is to be left alone. That counts from
// the first answer by which the device was not offered: what was offered before, and
// to whom, nobody knows after a start, nor while the node was cut off.
func (p *Plugin) settles(i *item, offered map[string]bool) *settlingError {
	if offered == nil {
		return nil // no device ever was
	}
	now := time.Now()
	until := now
	for _, thing := range i.Occupies {
		if offered[thing] {
			delete(p.clearSince, thing)
			return &settlingError{settle: p.options.Settle}
		}
		if _, known := p.clearSince[thing]; !known {
			p.clearSince[thing] = now
		}
		if ends := p.clearSince[thing].Add(p.options.Settle); ends.After(until) {
			until = ends
		}
	}
	if until.After(now) {
		return &settlingError{until: until, settle: p.options.Settle}
	}
	return nil
}
