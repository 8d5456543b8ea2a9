package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// filesLock stands for the files for containers where claims have their UID.
const filesLock types.UID = holderPrefix + "files"

// prepareWithin is how long a family may take. What it asks for answers in less than
// a second, or hangs.
const prepareWithin = 15 * time.Second

// prepare asks a device's family what containers need for it. A family that hangs keeps
// neither kubelet nor other devices waiting: it is not asked about the device again
// before it has answered.
func (p *Plugin) prepare(ctx context.Context, i *item) error {
	late := fmt.Errorf("it is not ready within %s, since its hardware or the kernel does not answer: if that stays so, see the kernel's log, and restart the machine", p.options.PrepareWithin)
	p.mu.Lock()
	if p.late[i.holder()] {
		p.mu.Unlock()
		return late
	}
	p.preparing[i.holder()]++
	p.asks++
	now := preparation{holder: i.holder(), number: p.asks, look: p.looks}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, p.options.PrepareWithin)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.askFamily(ctx, i, now) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err() // who asked has gone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.preparing[i.holder()] > 0 {
		p.late[i.holder()] = true
	}
	failed := now
	failed.err = late
	p.note(i, failed)
	return late
}

// askFamily is prepare without a limit for how long it takes.
func (p *Plugin) askFamily(ctx context.Context, i *item, now preparation) error {
	now.edits, now.err = i.family.Prepare(ctx, i.grant())
	if now.err == nil {
		now.err = faultpoint.At(faultpoint.DevicePluginPrepared)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.preparing[now.holder]--
	if p.preparing[now.holder] == 0 {
		delete(p.preparing, now.holder)
		delete(p.late, now.holder)
	}
	p.note(i, now)
	return now.err
}

// note keeps what a family said of a device, unless another has asked since. What it
// said too late counts.
func (p *Plugin) note(i *item, now preparation) {
	if now.number >= p.prepared[i.id].number {
		p.prepared[i.id] = now
	}
}

// isPreparing tells whether a preparation of what somebody has is under way.
func (p *Plugin) isPreparing(holder types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.preparing[holder] > 0
}

// ensurePrepared prepares a device that is held anew after each look at the
// hardware, and if it is its turn: a family may find out by that what it would else
// see much later.
func (p *Plugin) ensurePrepared(ctx context.Context, i *item, turn bool) error {
	p.mu.Lock()
	last, known := p.prepared[i.id]
	upToDate := known && last.err == nil && last.look == p.looks
	p.mu.Unlock()
	if upToDate && !turn {
		return nil
	}
	return p.prepare(ctx, i)
}

// writeFiles writes what containers need for the devices that are held.
func (p *Plugin) writeFiles(ctx context.Context) error {
	// Another instance writes the same files.
	unlock, err := p.store.Lock(ctx, filesLock)
	if err != nil {
		return err
	}
	defer unlock()
	held, edits, missing := p.content()
	return errors.Join(p.specs.write(held, edits, missing), p.infos.write(held), faultpoint.At(faultpoint.DevicePluginFiles))
}

// content returns the devices that are held, what containers need for them, and the
// families of those that are held and not there at the moment.
func (p *Plugin) content() (held items, edits map[string]device.Edits, missing []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edits = map[string]device.Edits{}
	for _, i := range p.all {
		if s := p.prepared[i.id]; s.holder == i.holder() && s.err == nil && p.hasAll(i) {
			held, edits[i.id] = append(held, i), s.edits
		}
	}
	for thing, h := range p.held {
		if p.all.occupying(thing) == nil && !slices.Contains(missing, h.Device.Family) {
			missing = append(missing, h.Device.Family)
		}
	}
	return held, edits, missing
}

// editsOf returns what containers need for a device by what its family said last,
// which may be another answer than that to who asks here. It returns an error if
// that was said of another place, or if the family could not tell.
func (p *Plugin) editsOf(i *item) (device.Edits, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, known := p.prepared[i.id]
	if !known || last.holder != i.holder() {
		return device.Edits{}, fmt.Errorf("device %q is not where it was a moment ago: delete the pod, so that it is given a device anew", i.Name)
	}
	if last.err != nil {
		return device.Edits{}, fmt.Errorf("device %q: %w", i.Name, last.err)
	}
	return last.edits, nil
}
