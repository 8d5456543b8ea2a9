package deviceplugin

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// preparedAtOnce is how many devices are prepared side by side: all GPUs of a machine.
const preparedAtOnce = 8

// step brings every device nearer to where the configuration wants it, and tells
// kubelet what it has to give.
func (p *Plugin) step(ctx context.Context) {
	if !p.mayStep(ctx) {
		return
	}
	asked := time.Now()
	uses, err := p.uses(ctx)
	p.stepping.Lock()
	defer p.stepping.Unlock()
	p.hear(ctx, err)
	p.asked = p.takeUsed(ctx, uses) && p.asked
	p.settleDoubt(uses)
	if err == nil {
		p.freeUnused(ctx, uses, asked)
	} else {
		p.forgetNone()
	}
	p.update(ctx)
	if len(p.lacks()) > 0 {
		signal(p.lacking)
	}
}

// forgetNone drops which pods kubelet did not know of: it may have heard of them
// since it was asked last.
func (p *Plugin) forgetNone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgotten = nil
}

// mayStep finds out what is held, and tells whether there is anything to do.
func (p *Plugin) mayStep(ctx context.Context) bool {
	p.stepping.Lock()
	defer p.stepping.Unlock()
	if err := p.readHeld(); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot tell what the device plugin holds")
		return false
	}
	p.mend(ctx)
	p.mu.Lock()
	p.settleAnew(slices.Collect(maps.Keys(p.held))...)
	p.mu.Unlock()
	return !p.idle()
}

// hear notes whether kubelet has answered. Its silence frees nothing. Where no device
// plugin was ever used it has no checkpoint, which matters once something is to be
// freed.
func (p *Plugin) hear(ctx context.Context, err error) {
	if err == nil || errors.Is(err, kubelet.ErrIncomplete) {
		p.asked = true
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) && !p.draining() {
		p.silence = ""
		return
	}
	if text := err.Error(); ctx.Err() == nil && text != p.silence {
		p.silence = text
		klog.FromContext(ctx).Error(err, "Kubelet does not say who uses which devices: what the device plugin has stays with it")
	}
}

// draining tells whether something is held that is to go to claims.
func (p *Plugin) draining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.held {
		if !slices.Contains(p.options.Kinds, h.DevicePlugin.Kind) {
			return true
		}
	}
	return false
}

// freeUnused gives back what is not to be served here, once nobody uses it by what
// kubelet said when it was asked.
func (p *Plugin) freeUnused(ctx context.Context, uses map[string]kubelet.Use, asked time.Time) {
	p.mu.Lock()
	held := maps.Clone(p.held)
	all := p.all
	p.mu.Unlock()
	things := map[types.UID][]string{}
	used := map[types.UID]bool{}
	forgotten := map[string]forgetting{}
	for _, thing := range slices.Sorted(maps.Keys(held)) {
		h := held[thing]
		use := p.useOf(thing, h, uses)
		now, err := p.noteUse(ctx, thing, use, asked)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot note who uses a device", "device", h.Device.Device)
			used[h.Claim.UID] = true
			continue
		}
		if now.DevicePlugin == nil { // given back by another instance
			continue
		}
		things[h.Claim.UID] = append(things[h.Claim.UID], thing)
		if pods := forgottenIn(now, use); len(pods) > 0 {
			forgotten[thing] = p.forgetting(thing, pods)
		}
		if len(use.Pods) > 0 || len(now.Pods) > 0 || p.committing(now, asked) {
			used[h.Claim.UID] = true
		}
		// A device of a kind that is served here, and that is not there at the
		// moment, comes back.
		if i := all.occupying(thing); i != nil && i.wanted || i == nil && slices.Contains(p.options.Kinds, h.DevicePlugin.Kind) {
			used[h.Claim.UID] = true
		}
	}
	p.mu.Lock()
	p.forgotten = forgotten
	p.mu.Unlock()
	for uid, things := range things {
		if used[uid] {
			continue
		}
		if err := p.free(ctx, uid, things, asked); err != nil {
			klog.FromContext(ctx).Error(err, "A device is not given back, it is tried again")
		}
	}
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
func (p *Plugin) update(ctx context.Context) {
	states := map[string]state{}
	all := p.items()
	p.steps++
	errs := p.ensureAllPrepared(ctx, all)
	if ctx.Err() != nil {
		return // what could not be asked any more says nothing of devices
	}
	for n, i := range all {
		if s, is := p.stateOf(ctx, i, errs[n]); is {
			states[i.id] = s
		}
	}
	err := p.writeFiles(ctx)
	p.written = err == nil
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Containers may not find what they need for their devices, it is tried again")
		for id, s := range states {
			s.problem = err.Error()
			states[id] = s
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.states, states) {
		p.logHealth(ctx, states)
		close(p.updated)
		p.updated = make(chan struct{})
	}
	p.states = states
	p.metrics.observe(p.all, states)
}

// ensureAllPrepared has what containers need of the devices that are held, and
// returns the error of each: one that hangs does not keep others waiting.
func (p *Plugin) ensureAllPrepared(ctx context.Context, all items) []error {
	errs := make([]error, len(all))
	var group errgroup.Group
	group.SetLimit(preparedAtOnce)
	for n, i := range all {
		if p.holds(i) {
			group.Go(func() error {
				errs[n] = p.ensurePrepared(ctx, i, n == p.steps%len(all))
				return nil
			})
		}
	}
	_ = group.Wait() // each error belongs to its device
	return errs
}

// stateOf returns the state of a device that is to be served here or is held. Err is
// why it could not be prepared.
func (p *Plugin) stateOf(ctx context.Context, i *item, err error) (_ state, is bool) {
	if !p.holds(i) {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.prepared, i.id)
		return state{problem: p.reasons[i.id]}, i.wanted
	}
	s := state{held: true}
	if err != nil {
		s.problem = err.Error()
		p.tell(ctx, i, s.problem)
		return s, true
	}
	p.tell(ctx, i, "")
	s.problem = complaint(p.problems(i))
	if h, ok := p.knownOtherwise(i); ok {
		s.problem = (&formerError{i, h}).Error()
	}
	if err := p.longForgotten(i); err != nil {
		s.problem = err.Error()
	}
	return s, true
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
		if ok && (len(h.DevicePlugin.Users) > 0 || len(h.Pods) > 0 || p.committing(h, time.Now())) {
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
