package driver

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// FamiliesInUse returns the names of the families of which claims have devices
// on this node, from what is on disk in dataDir.
func FamiliesInUse(ctx context.Context, dataDir string) (names []string, err error) {
	store, err := claimstore.Open(ctx, dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	found := map[string]bool{}
	holdings, _, err := store.Holdings()
	if err != nil {
		return nil, err
	}
	for _, h := range holdings {
		found[h.Device.Family] = true
	}
	uids, err := store.Claims()
	if err != nil {
		return nil, err
	}
	for _, uid := range uids {
		record, err := store.Load(uid)
		if err != nil || record == nil { // the driver sets aside what it cannot read
			continue
		}
		for _, d := range record.Devices {
			found[d.Family] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Retired returns a family that is switched off while claims have its devices:
// it has none for new claims, and serves those that there are to their end.
func Retired(f Family) Family {
	if attacher, ok := f.(Attacher); ok {
		return retiredAttacher{attacher}
	}
	return retired{f}
}

type retired struct{ Family }

// Devices returns none.
func (retired) Devices(context.Context) (device.Inventory, error) { return device.Inventory{}, nil }

// Watch has nothing to tell.
func (retired) Watch(ctx context.Context, _ func()) { <-ctx.Done() }

type retiredAttacher struct{ Attacher }

// Devices returns none.
func (retiredAttacher) Devices(context.Context) (device.Inventory, error) {
	return device.Inventory{}, nil
}

// Watch has nothing to tell.
func (retiredAttacher) Watch(ctx context.Context, _ func()) { <-ctx.Done() }
