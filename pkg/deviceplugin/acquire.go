package deviceplugin

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// askAgain is when the API server is asked again about a device that it offers.
const askAgain = time.Second

// acquireWhenDue takes what is to be served here, whenever a step has found that
// something is not held, until ctx is done. Steps do not wait for it: the API server
// of a node that is cut off does not answer for a long time.
func (p *Plugin) acquireWhenDue(ctx context.Context, published Published) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.lacking:
			p.acquire(ctx, published)
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
// it could not have others.
func (p *Plugin) acquire(ctx context.Context, published Published) {
	offered, err := published(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		err = fmt.Errorf("ask the API server whether claims are still offered the device: %w", err)
	}
	p.stepping.Lock()
	defer p.stepping.Unlock()
	reasons := map[string]string{}
	taken := false
	for _, i := range p.lacks() {
		why := err
		if why == nil {
			why = p.acquireOne(ctx, i, offered)
		}
		if why == nil {
			taken = true
			continue
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
}

// acquireOne takes a device, or says why that must wait.
func (p *Plugin) acquireOne(ctx context.Context, i *item, offered map[string]bool) error {
	if err := p.settles(i, offered); err != nil {
		time.AfterFunc(err.again, func() { signal(p.due) })
		return err
	}
	return p.take(ctx, i)
}

// settlingError says that a device is left alone, so that claims that were allocated
// it are prepared. Its text stays the same until there is other news.
type settlingError struct {
	// until is zero while the device is still offered to claims.
	until  time.Time
	settle time.Duration
	again  time.Duration
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
			return &settlingError{settle: p.options.Settle, again: askAgain}
		}
		if _, known := p.clearSince[thing]; !known {
			p.clearSince[thing] = now
		}
		if ends := p.clearSince[thing].Add(p.options.Settle); ends.After(until) {
			until = ends
		}
	}
	if wait := until.Sub(now); wait > 0 {
		return &settlingError{until: until, settle: p.options.Settle, again: wait}
	}
	return nil
}
