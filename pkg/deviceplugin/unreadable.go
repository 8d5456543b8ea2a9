package deviceplugin

import (
	"context"
	"errors"
	"maps"
	"slices"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// readHeld reads from disk what the device plugin holds: another instance may
// have changed it. What cannot be read is held by whoever had it.
func (p *Plugin) readHeld() error {
	all, unreadable, err := p.store.Holdings()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range unreadable {
		thing := claimstore.ThingOf(u)
		if former, had := p.held[thing]; had {
			p.broken[thing] = former
		} else if !p.heard {
			p.doubtful[thing] = true
		}
	}
	for thing, former := range p.broken {
		if _, readable := all[thing]; readable { // written by somebody else
			delete(p.broken, thing)
		} else {
			all[thing] = former
		}
	}
	maps.DeleteFunc(all, func(_ string, h claimstore.Holding) bool { return h.DevicePlugin == nil })
	if !maps.EqualFunc(p.held, all, func(a, b claimstore.Holding) bool { return a.Claim.UID == b.Claim.UID }) {
		signal(p.news)
	}
	p.held = all
	return nil
}

// mend writes holdings again that cannot be read any more.
func (p *Plugin) mend(ctx context.Context) {
	p.mu.Lock()
	broken := maps.Clone(p.broken)
	p.mu.Unlock()
	for _, thing := range slices.Sorted(maps.Keys(broken)) {
		kept, err := p.writeAgain(ctx, thing, broken[thing])
		if err != nil {
			klog.FromContext(ctx).Error(err, "What the device plugin holds cannot be written again, it is tried again", "device", broken[thing].Device.Device)
			continue
		}
		p.mu.Lock()
		delete(p.broken, thing)
		if !kept {
			delete(p.held, thing)
			signal(p.news)
		}
		p.mu.Unlock()
	}
}

// writeAgain writes a holding again, unless a claim has the thing by now.
func (p *Plugin) writeAgain(ctx context.Context, thing string, h claimstore.Holding) (kept bool, err error) {
	unlock, err := p.store.Lock(ctx, h.Claim.UID)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := p.store.Holder(thing); err != nil {
		if err := p.setAside(ctx, err); err != nil {
			return false, err
		}
	}
	err = p.inNoRecord(thing, h.Device.Device)
	if errors.As(err, new(*heldError)) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	holder, err := p.store.Take(thing, h)
	if err == nil {
		err = faultpoint.At(faultpoint.DevicePluginRepaired)
	}
	return holder == nil, err
}

// settleDoubt ends the doubt about things whose holdings could not be read at the
// start, now that kubelet has said who uses what: what is used is held.
func (p *Plugin) settleDoubt(uses map[string]kubelet.Use) {
	if uses == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = true
	for thing := range p.doubtful {
		i := p.all.occupying(thing)
		if i != nil && !p.hasAll(i) {
			if _, used := uses[i.id]; used {
				continue // it could not be taken, which is tried again
			}
		}
		delete(p.doubtful, thing)
		signal(p.news)
	}
}

// setAside moves a holding that cannot be read out of the way.
func (p *Plugin) setAside(ctx context.Context, err error) error {
	var unreadable *claimstore.UnreadableError
	if !errors.As(err, &unreadable) {
		return err
	}
	path, err := p.store.SetAside(ctx, unreadable)
	if err == nil {
		err = faultpoint.At(faultpoint.DevicePluginSetAside)
	}
	if err != nil {
		return errors.Join(unreadable, err)
	}
	klog.FromContext(ctx).Error(unreadable, "File set aside: its content is made anew from what else is known; the file can be deleted", "path", path)
	return nil
}

// inNoRecord returns an error if a claim has a thing by its record: its holding
// may be lost.
func (p *Plugin) inNoRecord(thing, name string) error {
	uids, err := p.store.Claims()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		record, err := p.store.Load(uid)
		if err != nil || record == nil {
			continue // its claim's next call deals with it
		}
		for _, d := range record.Devices {
			if !d.AdminAccess && slices.Contains(d.Occupies, thing) {
				return &heldError{name, claimstore.Holding{Claim: record.Claim, Device: d}}
			}
		}
	}
	return nil
}
