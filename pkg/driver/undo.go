package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// undoLog remembers what a prepare did, for when it fails.
type undoLog struct {
	driver *Driver
	claim  device.Claim
	// ready: the claim was prepared before this call, so a container may use
	// what it had.
	ready bool
	// had: the claim had some of it, but no record that says whether it was
	// ready.
	had      bool
	taken    map[string]bool
	prepared []claimstore.Device
}

// took notes that the claim has a thing, and whether it had it before. What a
// crashed prepare left is undone like our own.
func (u *undoLog) took(thing string, had bool) {
	if had && u.ready {
		return
	}
	u.had = u.had || had
	if u.taken == nil {
		u.taken = map[string]bool{}
	}
	u.taken[thing] = true
}

// run undoes what was done, last first, also when the call's time is up.
func (u *undoLog) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if used, err := u.used(ctx); err != nil || used {
		return err
	}
	var errs []error
	kept := map[string]bool{}
	for _, entry := range slices.Backward(u.prepared) {
		if !u.ours(entry) {
			continue
		}
		if err := u.undo(ctx, entry); err != nil {
			errs = append(errs, err)
			for _, thing := range entry.Occupies {
				kept[thing] = true // not ready for another claim
			}
		}
	}
	for thing := range u.taken {
		if kept[thing] {
			continue
		}
		if err := u.free(thing); err != nil {
			errs = append(errs, err)
		}
	}
	if !u.ready {
		errs = append(errs, u.removeFiles(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo what was prepared: %w", err)
	}
	return nil
}

// used tells whether containers use what the claim has although it has no
// record: that was lost, and was not of a prepare that crashed.
func (u *undoLog) used(ctx context.Context) (bool, error) {
	if !u.had {
		return false, nil
	}
	has, err := u.driver.belongings(ctx, u.claim.UID)
	if err != nil {
		return false, err
	}
	running, err := u.driver.options.Processes.Running(has.pods())
	if len(running) > 0 {
		klog.FromContext(ctx).Info("Nothing is undone: pods of the claim run with what it has", "pods", running)
	}
	return len(running) > 0, err
}

func (u *undoLog) free(thing string) error {
	if err := u.driver.store.PutBack(thing, u.claim.UID); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.UndoFreed)
}

// removeFiles removes all that a claim has besides devices. One that cannot be
// removed does not keep the others.
func (u *undoLog) removeFiles(ctx context.Context) error {
	// A save that failed late may have left a record.
	err := u.driver.store.Delete(u.claim.UID)
	err = errors.Join(err, faultpoint.At(faultpoint.UndoDeleted))
	err = errors.Join(err, u.driver.cdi.Remove(u.claim.UID))
	err = errors.Join(err, faultpoint.At(faultpoint.UndoCDI))
	// A preparation that crashed after it was done may have left these.
	err = errors.Join(err, u.driver.metadata.Remove(ctx, u.claim))
	return errors.Join(err, faultpoint.At(faultpoint.UndoMetadata))
}

func (u *undoLog) undo(ctx context.Context, entry claimstore.Device) error {
	family, grant, err := u.driver.grantOf(u.claim, entry)
	if err != nil {
		return err
	}
	if err := family.Release(ctx, grant); err != nil {
		return fmt.Errorf("release device %q: %w", entry.Device, err)
	}
	return faultpoint.At(faultpoint.UndoFamily)
}

func (u *undoLog) ours(entry claimstore.Device) bool {
	for _, thing := range entry.Occupies {
		if !u.taken[thing] {
			return false
		}
	}
	return true
}
