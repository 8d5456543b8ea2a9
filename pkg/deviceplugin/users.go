package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// adopt holds the devices that pods have by a device plugin, whichever gave them:
// those of an earlier release or of another vendor's plugin are used, too.
func (p *Plugin) adopt(ctx context.Context) {
	uses, err := p.uses(ctx)
	if uses == nil {
		klog.FromContext(ctx).Info("Kubelet does not say which pods have devices by the device plugin API; it is asked again", "reason", err.Error())
		return
	}
	p.stepping.Lock()
	defer p.stepping.Unlock()
	p.takeUsed(ctx, uses)
}

// uses returns who uses which devices: pods that kubelet names, and of those that
// only its checkpoint has the ones that have processes, or are yet to have some.
// With a [kubelet.ErrIncomplete] it returns those that are known all the same.
func (p *Plugin) uses(ctx context.Context) (map[string]kubelet.Use, error) {
	uses, incomplete := p.options.Kubelet.Uses(ctx)
	if incomplete != nil && !errors.Is(incomplete, kubelet.ErrIncomplete) {
		return nil, incomplete
	}
	var unnamed []types.UID
	for _, use := range uses {
		if len(use.Pods) == 0 {
			unnamed = append(unnamed, use.UIDs...)
		}
	}
	running, err := p.options.Processes.Running(unnamed)
	if err != nil {
		return nil, fmt.Errorf("find out whether pods that kubelet does not name have ended: %w", err)
	}
	used := map[string]kubelet.Use{}
	for id, use := range uses {
		if len(use.Pods) == 0 {
			use.UIDs = slices.DeleteFunc(slices.Clone(use.UIDs), func(uid types.UID) bool {
				return !slices.Contains(running, uid) && !slices.Contains(use.Starting, uid)
			})
		}
		if len(use.Pods) > 0 || len(use.UIDs) > 0 {
			used[id] = use
		}
	}
	return used, incomplete
}

// takeUsed holds what is used and nobody holds. It tells whether it has all of that.
func (p *Plugin) takeUsed(ctx context.Context, uses map[string]kubelet.Use) (all bool) {
	all = true
	for _, i := range p.items() {
		use, used := uses[i.id]
		if !used || p.holds(i) {
			continue
		}
		if err := p.take(ctx, i); err != nil {
			if text := err.Error(); p.foreign[i.id] != text {
				p.foreign[i.id] = text
				klog.FromContext(ctx).Error(err, "A pod has a device that is not the device plugin's: see that no other device plugin gives it out", "device", i.Name, "pods", use.Pods)
			}
			all = false
			continue
		}
		delete(p.foreign, i.id)
		klog.FromContext(ctx).Info("Device found in use by pods that have it as an extended resource", "device", i.Name, "pods", use.Pods)
	}
	return all
}

// use is who uses a device that is held.
type use struct {
	kubelet.Use
	// formerResource and formerID are as what pods have it if that is not what the
	// device is now; empty otherwise.
	formerResource, formerID string
}

// useOf returns who uses a thing that is held. Kubelet may know its device by
// another ID than at the time when it was taken, since a GPU was replaced, or has
// changed places with another one: its pods then use it where it is now.
func (p *Plugin) useOf(thing string, h claimstore.Holding, uses map[string]kubelet.Use) use {
	u := use{Use: uses[h.DevicePlugin.ID]}
	i := p.items().occupying(thing)
	if i == nil {
		return u
	}
	if i.id != h.DevicePlugin.ID {
		if p.items().byID(h.DevicePlugin.ID) != nil {
			u = use{}
		}
		if len(u.Pods) > 0 {
			u.formerID = h.DevicePlugin.ID
		}
		now := uses[i.id]
		u.Pods, u.UIDs, u.Resources = slices.Concat(u.Pods, now.Pods), slices.Concat(u.UIDs, now.UIDs), slices.Concat(u.Resources, now.Resources)
		u.Starting = slices.Concat(u.Starting, now.Starting)
	}
	if n := slices.IndexFunc(u.Resources, func(name string) bool { return i.resource != nil && name != i.resource.Name }); n >= 0 {
		u.formerResource = u.Resources[n]
	}
	return u
}

// noteUse writes down who uses the things that are held, for the messages of
// others, and for when kubelet forgets a pod before its processes have ended.
func (p *Plugin) noteUse(ctx context.Context, thing string, use use, asked time.Time) (claimstore.Holding, error) {
	p.mu.Lock()
	uid := p.held[thing].Claim.UID
	p.mu.Unlock()
	unlock, err := p.store.Lock(ctx, uid)
	if err != nil {
		return claimstore.Holding{}, err
	}
	defer unlock()
	h, err := p.store.Holder(thing)
	if err != nil || h == nil || h.DevicePlugin == nil {
		return claimstore.Holding{}, err
	}
	former := slices.DeleteFunc(slices.Clone(h.Pods), func(pod types.UID) bool { return slices.Contains(use.UIDs, pod) })
	left, err := p.options.Processes.Running(former)
	if err != nil {
		return claimstore.Holding{}, fmt.Errorf("find out whether former users of device %q have ended: %w", h.Device.Device, err)
	}
	pods := slices.Concat(use.UIDs, left)
	users := slices.Sorted(slices.Values(use.Pods))
	changed := !slices.Equal(pods, h.Pods) || !slices.Equal(users, h.DevicePlugin.Users)
	h.Pods, h.DevicePlugin.Users = pods, users
	renamed, err := p.renamed(thing, h, use, asked)
	if err != nil {
		return claimstore.Holding{}, err
	}
	if !changed && !renamed {
		return *h, nil
	}
	err = p.store.Update(thing, *h)
	if err == nil {
		err = faultpoint.At(faultpoint.DevicePluginUseNoted)
	}
	if err != nil {
		return claimstore.Holding{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[thing] = *h
	return *h, nil
}
