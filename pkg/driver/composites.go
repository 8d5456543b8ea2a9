package driver

import (
	"context"
	"fmt"
	"reflect"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
)

// isComposite tells whether the device is made of others.
func (d owned) isComposite() bool { return d.family == nil }

// owner names the family of a single device, and the kind of a composite.
func (d owned) owner() string {
	if d.isComposite() {
		return string(d.Kind)
	}
	return d.family.Name()
}

// pool is what the node's pool has to have.
type pool struct {
	devices  []owned
	counters []resourceapi.CounterSet
	// managed tells that some of the devices need the taint of devices that are
	// not kube-scheduler's, and allocators which do.
	managed    bool
	allocators map[string]managed.Allocator
	// ruled are the taints that composites have by rules of their parts.
	ruled map[string][]resourceapi.DeviceTaint
}

// pool returns the content of the node's pool, in order.
func (i *inventory) pool() pool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return pool{devices: i.all, counters: i.joined.Counters}
}

// join makes composites of what the families have found.
func (i *inventory) join(ctx context.Context, found []discovery) (pairs.Joined, []owned) {
	i.mu.RLock()
	input := pairs.Found{Before: i.joined.Pairs}
	i.mu.RUnlock()
	var err error
	if input.Held, err = i.held(); err != nil {
		// What is held anyhow is not given away by Prepare.
		klog.FromContext(ctx).Error(err, "Cannot tell which devices claims have: pairs are made as if there were none")
	}
	families := map[string]Family{}
	for _, f := range found {
		input.Counters = append(input.Counters, f.inventory.Counters...)
		input.Devices = append(input.Devices, f.inventory.Devices...)
		for _, d := range f.inventory.Devices {
			families[d.Name] = f.family
		}
	}
	joined := i.pairs.Join(input)
	singles := map[string]owned{}
	for _, d := range joined.Devices {
		if len(d.Parts) == 0 {
			singles[d.Name] = i.diagnose(owned{Device: d.Device, family: families[d.Name]})
		}
	}
	var all []owned
	for _, d := range joined.Devices {
		if len(d.Parts) == 0 {
			all = append(all, singles[d.Name])
			continue
		}
		composite := owned{Device: d.Device, held: d.Held}
		for _, name := range d.Parts {
			composite.parts = append(composite.parts, singles[name])
		}
		all = append(all, i.diagnose(composite))
	}
	return joined, all
}

// rejoin makes the composites anew after claims have got or given back devices,
// without a look at the hardware. It tells whether that has changed anything.
func (i *inventory) rejoin(ctx context.Context) bool {
	i.looking.Lock()
	defer i.looking.Unlock()
	i.mu.RLock()
	found, before := i.found, i.joined
	i.mu.RUnlock()
	joined, all := i.join(ctx, found)
	if reflect.DeepEqual(before, joined) {
		return false
	}
	i.learn(ctx, found, joined, all)
	return true
}

// rejoinFor has the composites made anew if what a claim got or gave back can
// change them: a composite is there no more, or a VF of a pair.
func (d *Driver) rejoinFor(entries []claimstore.Device) {
	for _, entry := range entries {
		dev, ok := d.inventory.device(entry.Device)
		if !ok || dev.isComposite() || dev.Kind == device.KindVF {
			d.rejoin.send()
			return
		}
	}
}

// tellOfPairs logs how the pairs have changed, and why.
func (i *inventory) tellOfPairs(ctx context.Context, before, after []pairs.Pair) {
	i.metrics.paired(after)
	had := map[string]pairs.Pair{}
	for _, p := range before {
		had[p.Name] = p
	}
	for _, p := range after {
		if old, ok := had[p.Name]; ok && old.String() == p.String() {
			continue
		}
		if p.VF == "" {
			klog.FromContext(ctx).Info("A GPU has no VF beside it", "gpu", p.GPU, "reason", p.Why)
			continue
		}
		klog.FromContext(ctx).Info("A GPU and a VF are a pair", "device", p.Name, "gpu", p.GPU, "vf", p.VF, "nic", p.NIC, "relation", p.Relation, "reason", p.Why)
	}
}

// whyAlone tells why there is no composite of that name, if it is known.
func (i *inventory) whyAlone(name string) string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for _, p := range i.joined.Pairs {
		if p.Name == name && p.VF == "" {
			return p.String()
		}
	}
	return ""
}

// heldThings returns which claim has which physical thing. Holdings that cannot
// be read are dealt with by whoever needs the thing.
func (d *Driver) heldThings() (map[string]pairs.Holder, error) {
	holdings, _, err := d.store.Holdings()
	if err != nil {
		return nil, fmt.Errorf("list what claims have: %w", err)
	}
	held := make(map[string]pairs.Holder, len(holdings))
	for thing, h := range holdings {
		held[thing] = pairs.Holder{Claim: h.Claim, Device: h.Device.Device}
	}
	return held, nil
}
