package deviceplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// heldError says who has a device that is to be served here.
type heldError struct {
	device string
	holder claimstore.Holding
}

func (e *heldError) Error() string {
	return fmt.Sprintf("device %q belongs to %s, and comes to the device plugin when that has given it back: delete the pod that has it, or wait; a pod that was refused it must be deleted", e.device, e.holder.Holder())
}

// take makes the device plugin the holder of all of a device, or of nothing. A
// device that a claim has is a [heldError].
func (p *Plugin) take(ctx context.Context, i *item) (err error) {
	unlock, err := p.store.Lock(ctx, i.holder())
	if err != nil {
		return err
	}
	defer unlock()
	var taken []string
	defer func() {
		if err == nil {
			return
		}
		for _, thing := range taken {
			err = errors.Join(err, p.store.PutBack(thing, i.holder()))
		}
	}()
	for _, thing := range slices.Sorted(slices.Values(i.Occupies)) {
		had, err := p.store.Holds(i.holder(), thing)
		if err != nil {
			if err := p.setAside(ctx, err); err != nil {
				return err
			}
		}
		if had {
			continue
		}
		if err := p.inNoRecord(thing, i.Name); err != nil {
			return err
		}
		holder, err := p.store.Take(thing, i.holding())
		if err != nil {
			return err
		}
		if holder != nil {
			return &heldError{i.Name, *holder}
		}
		taken = append(taken, thing)
		if err := faultpoint.At(faultpoint.DevicePluginTaken); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thing := range i.Occupies {
		if _, known := p.held[thing]; !known {
			p.held[thing] = i.holding()
		}
	}
	signal(p.news)
	return nil
}

// free gives a device back that nobody used when kubelet was asked.
func (p *Plugin) free(ctx context.Context, uid types.UID, things []string, asked time.Time) error {
	unlock, err := p.store.Lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := p.store.Holder(things[0])
	if err != nil || h == nil || h.Claim.UID != uid || p.committing(*h, asked) {
		return err // it has changed since it was looked at
	}
	if p.isPreparing(uid) {
		return nil // its family may still change the device
	}
	if err := p.release(ctx, *h); err != nil {
		return err
	}
	if err := p.infos.remove(h.DevicePlugin.Resource, h.DevicePlugin.ID); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.DevicePluginInfoGone); err != nil {
		return err
	}
	for _, thing := range things {
		if err := p.store.Free(thing, uid); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.DevicePluginFreed); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thing := range things {
		delete(p.held, thing)
	}
	signal(p.news)
	klog.FromContext(ctx).Info("Device is free for claims: no pod has it as an extended resource any more", "device", h.Device.Device)
	return nil
}

// release undoes what a device's family may have changed.
func (p *Plugin) release(ctx context.Context, h claimstore.Holding) error {
	n := slices.IndexFunc(p.options.Families, func(f Family) bool { return f.Name() == h.Device.Family })
	if n < 0 {
		return fmt.Errorf("device %q, which pods had as an extended resource, belongs to family %q, which is switched off or not in this release: switch it on to release the device", h.Device.Device, h.Device.Family)
	}
	i := &item{family: p.options.Families[n]}
	i.Name, i.Occupies = h.Device.Device, h.Device.Occupies
	g := i.grant()
	g.AdminAccess = false
	if err := i.family.Release(ctx, g); err != nil {
		return fmt.Errorf("release device %q: %w", h.Device.Device, err)
	}
	return faultpoint.At(faultpoint.DevicePluginReleased)
}

// committing tells whether kubelet was given the device so shortly before it was
// asked who uses it, or since, that its answer may leave that out.
func (p *Plugin) committing(h claimstore.Holding, asked time.Time) bool {
	at := h.DevicePlugin.AllocatedAt
	if at == nil || h.DevicePlugin.BootID != p.options.BootID {
		return false
	}
	now := time.Now()
	if at.After(now) { // by a clock that was set back since, to whatever time
		return at.Sub(now) < p.options.CommitWait
	}
	// The time of the question by the clock as it is now, too. What was given since is
	// given, however long it takes to give others back.
	return now.Add(-now.Sub(asked)).Sub(*at) < p.options.CommitWait
}

// stamp notes that kubelet gives a device to a container, before it does: the
// device is then not given back before kubelet was asked about it.
func (p *Plugin) stamp(ctx context.Context, i *item) error {
	unlock, err := p.store.Lock(ctx, i.holder())
	if err != nil {
		return err
	}
	defer unlock()
	now := time.Now()
	for _, thing := range i.Occupies {
		h, err := p.store.Holder(thing)
		if err != nil {
			return err
		}
		if h == nil || h.DevicePlugin == nil || h.Claim.UID != i.holder() {
			if h == nil {
				return p.notHeld(i, thing)
			}
			return &heldError{i.Name, *h}
		}
		if i.otherwise(*h) {
			return &formerError{i, *h}
		}
		if err := p.leftOver(i, *h); err != nil {
			return err
		}
		h.DevicePlugin.AllocatedAt, h.DevicePlugin.BootID = &now, p.options.BootID
		if err := p.store.Update(thing, *h); err != nil {
			return err
		}
		p.mu.Lock()
		p.held[thing] = *h
		p.mu.Unlock()
	}
	return faultpoint.At(faultpoint.DevicePluginGiven)
}

// notHeld says why nobody has a device that kubelet asks for: kubelet may ask
// before it has heard of what has changed.
func (p *Plugin) notHeld(i *item, thing string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Another instance, which has another configuration, gave it back a moment ago.
	if _, had := p.held[thing]; had {
		return fmt.Errorf("device %q is on its way to claims, by the configuration: delete the pod, so that it is scheduled again", i.Name)
	}
	reason := cmp.Or(p.reasons[i.id], notSaid)
	return fmt.Errorf("device %q is not served by the device plugin yet: %s; delete the pod, so that it is scheduled again", i.Name, reason)
}
