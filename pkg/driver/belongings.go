package driver

import (
	"context"
	"errors"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// belongings are what a claim has on this node. They are valid as long as the
// claim's lock is held.
type belongings struct {
	record *claimstore.Record // nil if the claim has none
	held   map[string]claimstore.Holding
}

func (d *Driver) belongings(ctx context.Context, uid types.UID) (*belongings, error) {
	record, err := d.loadOrSetAside(ctx, uid)
	if err != nil {
		return nil, err
	}
	held, err := d.store.HoldingsOf(uid)
	if err != nil {
		return nil, err
	}
	return &belongings{record: record, held: held}, nil
}

func (b *belongings) empty() bool { return b.record == nil && len(b.held) == 0 }

// pods are those that may use the devices, as far as is known.
func (b *belongings) pods() []types.UID {
	var pods []types.UID
	if b.record != nil {
		pods = append(pods, b.record.Pods...)
	}
	for _, h := range b.held {
		pods = append(pods, h.Pods...)
	}
	slices.Sort(pods)
	return slices.Compact(pods)
}

// devices are those of the record, or those held where there is none.
func (b *belongings) devices() []claimstore.Device {
	if b.record != nil {
		return b.record.Devices
	}
	return b.heldDevices()
}

// heldDevices are the devices of which the claim holds something, whether it
// has a record or not. Devices of admin access are not among them: nothing was
// done for those.
func (b *belongings) heldDevices() []claimstore.Device {
	var entries []claimstore.Device
	for _, thing := range slices.Sorted(maps.Keys(b.held)) {
		entry := b.held[thing].Device
		if !slices.ContainsFunc(entries, func(e claimstore.Device) bool { return e.Family == entry.Family && e.Device == entry.Device }) {
			entries = append(entries, entry)
		}
	}
	return entries
}

// holds tells whether the claim has all that a device occupies.
func (b *belongings) holds(entry claimstore.Device) bool {
	if entry.AdminAccess {
		return true
	}
	for _, thing := range entry.Occupies {
		if _, ok := b.held[thing]; !ok {
			return false
		}
	}
	return true
}

// holdLost makes sure that a claim has what its record says, except what
// another claim has by now. The usual case writes nothing, so that a full disk
// is no hindrance.
func (d *Driver) holdLost(ctx context.Context, has *belongings) error {
	if has.record == nil {
		return nil
	}
	for _, entry := range has.record.Devices {
		if has.holds(entry) {
			continue
		}
		for _, thing := range entry.Occupies {
			if _, ok := has.held[thing]; ok {
				continue
			}
			holding := claimstore.Holding{Claim: has.record.Claim, Pods: has.record.Pods, Device: entry}
			got, err := d.holdThing(ctx, thing, holding)
			if err != nil {
				return err
			}
			if got {
				has.held[thing] = holding
			}
		}
	}
	return nil
}

// holdThing takes a thing, unless another claim has it.
func (d *Driver) holdThing(ctx context.Context, thing string, holding claimstore.Holding) (bool, error) {
	holder, err := d.store.Holder(thing)
	var unreadable *claimstore.UnreadableError
	if errors.As(err, &unreadable) {
		err = d.setAside(ctx, unreadable)
	}
	if err != nil {
		return false, err
	}
	if holder == nil {
		if holder, err = d.store.Take(thing, holding); err != nil {
			return false, err
		}
		if err := faultpoint.At(faultpoint.MendHolding); err != nil {
			return false, err
		}
	}
	if holder != nil && holder.Claim.UID != holding.Claim.UID {
		klog.FromContext(ctx).Error(nil, "A device is in the record of a claim while another has it", "device", holding.Device.Device, "claim", holding.Claim, "holder", holder.Claim)
	}
	return holder == nil || holder.Claim.UID == holding.Claim.UID, nil
}

// notePods adds the pods that share the claim by now to what it has. Kubelet
// asks for one preparation only, however many pods use a claim.
func (d *Driver) notePods(has *belongings, pods []types.UID) error {
	for thing, holding := range has.held {
		if !addMissing(&holding.Pods, pods) {
			continue
		}
		if err := d.store.Update(thing, holding); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.MendHoldingPods); err != nil {
			return err
		}
	}
	if has.record == nil || !addMissing(&has.record.Pods, pods) {
		return nil
	}
	if err := d.store.Save(has.record); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.MendPods)
}

// addMissing tells whether any of the pods was missing.
func addMissing(have *[]types.UID, pods []types.UID) bool {
	added := false
	for _, uid := range pods {
		if !slices.Contains(*have, uid) {
			*have = append(slices.Clip(*have), uid)
			added = true
		}
	}
	return added
}
