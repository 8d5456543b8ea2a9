package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// step brings every device nearer to where the configuration wants it, and tells
// kubelet what it has to give.
func (p *Plugin) step(ctx context.Context, published Published) {
	p.stepping.Lock()
	defer p.stepping.Unlock()
	logger := klog.FromContext(ctx)
	if err := p.readHeld(); err != nil {
		logger.Error(err, "Cannot tell what the device plugin holds")
		return
	}
	if p.idle() {
		return
	}
	uses, err := p.uses(ctx)
	if err == nil {
		p.asked, p.silence = true, ""
		p.takeUsed(ctx, uses)
		p.freeUnused(ctx, uses)
	} else if text := err.Error(); ctx.Err() == nil && text != p.silence {
		// Silence frees nothing.
		p.silence = text
		logger.Error(err, "Kubelet does not say who uses which devices: what the device plugin has stays with it")
	}
	reasons := p.takeWanted(ctx, published)
	p.update(ctx, reasons)
}

// freeUnused gives back what is not to be served here, once nobody uses it.
func (p *Plugin) freeUnused(ctx context.Context, uses map[string]kubelet.Use) {
	p.mu.Lock()
	held := maps.Clone(p.held)
	all := p.all
	p.mu.Unlock()
	things := map[types.UID][]string{}
	used := map[types.UID]bool{}
	for _, thing := range slices.Sorted(maps.Keys(held)) {
		h := held[thing]
		use := p.useOf(thing, h, uses)
		now, err := p.noteUse(ctx, thing, use)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot note who uses a device", "device", h.Device.Device)
			used[h.Claim.UID] = true
			continue
		}
		if now.DevicePlugin == nil { // given back by another instance
			continue
		}
		things[h.Claim.UID] = append(things[h.Claim.UID], thing)
		if len(use.Pods) > 0 || len(now.Pods) > 0 || p.committing(now) {
			used[h.Claim.UID] = true
		}
		// A device of a kind that is served here, and that is not there at the
		// moment, comes back.
		if i := all.occupying(thing); i != nil && i.wanted || i == nil && slices.Contains(p.options.Kinds, h.DevicePlugin.Kind) {
			used[h.Claim.UID] = true
		}
	}
	for uid, things := range things {
		if used[uid] {
			continue
		}
		if err := p.free(ctx, uid, things); err != nil {
			klog.FromContext(ctx).Error(err, "A device is not given back, it is tried again")
		}
	}
}

// takeWanted takes the devices that are to be served here and are free. It
// returns why it could not have others.
func (p *Plugin) takeWanted(ctx context.Context, published Published) map[string]string {
	reasons := map[string]string{}
	var missing items
	for _, i := range p.items() {
		if i.wanted && !p.holds(i) {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	offered, err := published(ctx)
	if err != nil {
		err = fmt.Errorf("ask the API server whether claims are still offered the device: %w", err)
		klog.FromContext(ctx).Error(err, "Devices are not served yet, it is tried again")
	}
	for _, i := range missing {
		switch wait := p.settles(i, offered); {
		case err != nil:
			reasons[i.id] = err.Error()
		case wait > 0:
			reasons[i.id] = "claims were offered it a moment ago"
			time.AfterFunc(wait, func() { signal(p.due) })
		default:
			if err := p.take(ctx, i); err != nil {
				reasons[i.id] = err.Error()
			}
		}
		p.tell(ctx, i, reasons[i.id])
	}
	return reasons
}

// settles returns for how long a device is to be left alone, so that claims that
// were allocated it are prepared.
func (p *Plugin) settles(i *item, offered map[string]bool) time.Duration {
	now, wait := time.Now(), time.Duration(0)
	for _, thing := range i.Occupies {
		if offered[thing] {
			p.settling[thing] = now
		}
		if last, ok := p.settling[thing]; ok {
			wait = max(wait, p.options.Settle-now.Sub(last))
		}
		if offered[thing] {
			wait = max(wait, time.Second) // until the API says otherwise
		}
	}
	return wait
}

// tell logs once why a device is not served yet, and that it is.
func (p *Plugin) tell(ctx context.Context, i *item, reason string) {
	if p.told[i.id] == reason {
		return
	}
	p.told[i.id] = reason
	if reason != "" {
		klog.FromContext(ctx).Info("Device is not served by the device plugin yet", "device", i.Name, "reason", reason)
		return
	}
	klog.FromContext(ctx).Info("Device is served by the device plugin from now on", "device", i.Name)
}

// update works out what kubelet is told of each device, and writes what
// containers need for those that are held.
func (p *Plugin) update(ctx context.Context, reasons map[string]string) {
	states := map[string]state{}
	var held items
	all := p.items()
	p.steps++
	for n, i := range all {
		if !p.holds(i) {
			if i.wanted {
				states[i.id] = state{problem: reasons[i.id]}
			}
			continue
		}
		s := p.prepared(ctx, i, n == p.steps%len(all))
		if s.err != nil {
			s.problem = s.err.Error()
		} else {
			s.problem = complaint(p.problems(i))
			if h, ok := p.knownOtherwise(i); ok {
				s.problem = (&formerError{i, h}).Error()
			}
			held = append(held, i)
		}
		p.tell(ctx, i, "")
		states[i.id] = s
	}
	if err := errors.Join(p.specs.write(held, states, p.missing()), p.infos.write(held)); err != nil {
		klog.FromContext(ctx).Error(err, "Containers may not find what they need for their devices, it is tried again")
		for id, s := range states {
			s.problem, s.err = err.Error(), err
			states[id] = s
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.EqualFunc(p.states, states, func(a, b state) bool { return a.held == b.held && a.problem == b.problem }) {
		p.logHealth(ctx, states)
		close(p.updated)
		p.updated = make(chan struct{})
	}
	p.states = states
	p.metrics.observe(p.all, states)
}

// missing are the families of devices that are held, and not there at the moment.
func (p *Plugin) missing() (families []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for thing, h := range p.held {
		if p.all.occupying(thing) == nil && !slices.Contains(families, h.Device.Family) {
			families = append(families, h.Device.Family)
		}
	}
	return families
}

// prepared returns what containers need for a device, asked for anew after each
// look at the hardware, and if it is its turn: a family may find out by that what
// it would else see much later.
func (p *Plugin) prepared(ctx context.Context, i *item, turn bool) state {
	p.mu.Lock()
	s, look := p.states[i.id], p.looks
	p.mu.Unlock()
	if s.held && s.err == nil && s.look == look && !turn {
		return s
	}
	s = state{held: true, look: look}
	s.edits, s.err = i.family.Prepare(ctx, i.grant())
	return s
}

// problems are those of a device that are not its user's doing.
func (p *Plugin) problems(i *item) []device.Problem {
	if i.resource == nil || len(i.resource.InUse) == 0 || !p.used(i) {
		return i.Problems
	}
	return slices.DeleteFunc(slices.Clone(i.Problems), func(problem device.Problem) bool {
		return slices.Contains(i.resource.InUse, problem.Reason)
	})
}

// used tells whether a pod has a device that is held.
func (p *Plugin) used(i *item) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thing := range i.Occupies {
		h, ok := p.held[thing]
		if ok && (len(h.DevicePlugin.Users) > 0 || len(h.Pods) > 0 || p.committing(h)) {
			return true
		}
	}
	return false
}

// logHealth logs devices whose health has changed.
func (p *Plugin) logHealth(ctx context.Context, now map[string]state) {
	for _, i := range p.all {
		before, known := p.states[i.id]
		after := now[i.id]
		if !known || !before.held || !after.held || before.problem == after.problem {
			continue
		}
		klog.FromContext(ctx).Info("The health of a device has changed for the device plugin", "device", i.Name, "problem", after.problem)
	}
}

// complaint joins problems into one text.
func complaint(problems []device.Problem) string {
	var texts []string
	for _, problem := range problems {
		texts = append(texts, problem.Message)
	}
	return strings.Join(texts, "; ")
}
