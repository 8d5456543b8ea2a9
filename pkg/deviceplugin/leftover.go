package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/prefer"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// leftOverWait is how long kubelet waits for an answer to Allocate while processes
	// of a former pod are left. It ends the containers of a pod that is deleted by
	// force within 2 s, and never asks a second time for a pod that was refused. It
	// admits one pod at a time, so it must not wait long.
	leftOverWait = 10 * time.Second
	// lookForProcessesEvery is how often processes are looked for meanwhile.
	lookForProcessesEvery = 200 * time.Millisecond
)

// leftOverError says that processes of a pod that kubelet does not know any more have
// a device: the pod was deleted by force, or kubelet's checkpoint was lost.
type leftOverError struct {
	device string
	pods   []types.UID
}

func (e *leftOverError) Error() string {
	return fmt.Sprintf("device %q is still used by processes of a pod that kubelet has forgotten, with the UID %s, since it was deleted by force or kubelet's checkpoint was lost: wait until they have ended, or end them; a pod that was refused the device must be deleted", e.device, e.pods[0])
}

// leftOver returns a [leftOverError] if a pod that had a device, by what was noted
// last, has processes. Whoever is to be given the device has none yet: kubelet asks
// for all containers of a pod before it starts the first, and not again for containers
// that start again.
func (p *Plugin) leftOver(i *item, h claimstore.Holding) error {
	running, err := p.options.Processes.Running(h.Pods)
	if err != nil {
		return fmt.Errorf("find out whether former users of device %q have ended: %w", i.Name, err)
	}
	if len(running) > 0 {
		return &leftOverError{i.Name, running}
	}
	return nil
}

// awaitLeftOver waits for what former pods have left of the devices, for as long as a
// pod can wait. Whoever goes on finds out whether it is gone.
func (p *Plugin) awaitLeftOver(ctx context.Context, ids []string) error {
	var had items
	for _, i := range p.items() {
		if slices.Contains(ids, i.id) {
			had = append(had, i)
		}
	}
	over := time.NewTimer(p.options.LeftOverWait)
	defer over.Stop()
	told := false
	for {
		err := p.leftOverOf(had)
		if !errors.As(err, new(*leftOverError)) {
			return err
		}
		if !told {
			klog.FromContext(ctx).Info("Kubelet waits for devices that processes of a former pod still use", "reason", err.Error(), "atMost", p.options.LeftOverWait)
			told = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-over.C:
			return err
		case <-time.After(lookForProcessesEvery):
		}
	}
}

// leftOverOf is leftOver for several devices, by what any instance has noted.
func (p *Plugin) leftOverOf(all items) error {
	for _, i := range all {
		for _, thing := range i.Occupies {
			h, err := p.store.Holder(thing)
			if err != nil {
				return err
			}
			if h == nil || h.DevicePlugin == nil {
				continue // who gives it finds that, too
			}
			if err := p.leftOver(i, *h); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgottenIn returns the pods that kubelet has forgotten of those that have a device
// by its holding. Of a pod that kubelet has not heard of yet, or that it does not name
// since only init containers have the device, its checkpoint tells.
func forgottenIn(h claimstore.Holding, u use) []types.UID {
	if len(u.Pods) > 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(h.Pods), func(uid types.UID) bool { return slices.Contains(u.Starting, uid) })
}

// forgetting is of which pods that have a device kubelet does not know, and since when.
type forgetting struct {
	pods  []types.UID
	since time.Time
}

func (p *Plugin) forgetting(thing string, pods []types.UID) forgetting {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := p.forgotten[thing].since
	if since.IsZero() {
		since = time.Now()
	}
	return forgetting{pods, since}
}

// longForgotten returns why kubelet is to give other devices than one that pods have of
// which it does not know: it would take it for free. As long as kubelet can wait until
// the processes have ended it need not know: a pod that it admits meanwhile would fail
// at once.
func (p *Plugin) longForgotten(i *item) error {
	for _, thing := range i.Occupies {
		p.mu.Lock()
		f := p.forgotten[thing]
		p.mu.Unlock()
		if len(f.pods) == 0 || time.Since(f.since) < p.options.LeftOverWait {
			continue
		}
		if err := p.leftOver(i, claimstore.Holding{Pods: f.pods}); err != nil {
			return err
		}
	}
	return nil
}

// withoutLeftOver returns the devices that kubelet may choose among without those that
// processes of former pods have, if enough are left.
func (p *Plugin) withoutLeftOver(ctx context.Context, available items, must []string, size int) items {
	pods := map[string][]types.UID{}
	var all []types.UID
	p.mu.Lock()
	for _, i := range available {
		for _, thing := range i.Occupies {
			pods[i.id] = append(pods[i.id], p.held[thing].Pods...)
		}
		all = append(all, pods[i.id]...)
	}
	p.mu.Unlock()
	running, err := p.options.Processes.Running(all)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot tell which devices former pods still use: kubelet may be refused what it chooses")
		return available
	}
	left := slices.DeleteFunc(slices.Clone(available), func(i *item) bool {
		return !slices.Contains(must, i.id) && slices.ContainsFunc(pods[i.id], func(uid types.UID) bool { return slices.Contains(running, uid) })
	})
	if len(left) < size {
		return available
	}
	return left
}

func (all items) choices() []prefer.Device {
	var choices []prefer.Device
	for _, i := range all {
		choices = append(choices, i.choice())
	}
	return choices
}
