package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// UnprepareResourceClaims gives the devices of claims back, all claims at the
// same time. It needs no API server.
func (d *Driver) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	d.calls.RLock()
	defer d.calls.RUnlock()
	errs := make([]error, len(claims))
	var wg sync.WaitGroup
	for n, claim := range claims {
		wg.Go(func() {
			start := time.Now()
			ref := device.Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
			logger := klog.FromContext(ctx).WithValues("claim", klog.KRef(claim.Namespace, claim.Name), "claimUID", claim.UID)
			released, err := d.unprepareClaim(klog.NewContext(ctx, logger), ref)
			observe(d.options.Metrics.unprepareSeconds, start, err)
			switch {
			case err != nil:
				errs[n] = fmt.Errorf("unprepare claim %s: %w", ref, err)
				logger.Error(err, "Claim not unprepared", "duration", time.Since(start))
			case len(released) == 0:
				logger.Info("Claim was not prepared, nothing to undo")
			default:
				logger.Info("Claim unprepared", "devices", released, "duration", time.Since(start))
			}
		})
	}
	wg.Wait()
	byUID := make(map[types.UID]error, len(claims))
	for n, claim := range claims {
		byUID[claim.UID] = errs[n]
	}
	return byUID, nil
}

func (d *Driver) unprepareClaim(ctx context.Context, ref device.Claim) ([]string, error) {
	if err := faultpoint.At(faultpoint.UnprepareReceived); err != nil {
		return nil, err
	}
	released, err := d.unprepareWhenUnused(ctx, ref)
	if err == nil {
		err = faultpoint.At(faultpoint.UnprepareAnswer)
	}
	return released, err
}

// unprepareWhenUnused waits a little for the end of processes that use the
// claim, and refuses to take their devices away.
//
// Kubelet has a claim unprepared once its pods' containers have stopped, but for
// one case: once a minute it does so for all pods that it no longer finds in the
// API, such as force-deleted ones, though it still waits for their containers to
// end (reconcileLoop in pkg/kubelet/cm/dra/manager.go of Kubernetes 1.37). It
// asks again when they have.
func (d *Driver) unprepareWhenUnused(ctx context.Context, ref device.Claim) ([]string, error) {
	waited := time.NewTimer(d.options.EndWait)
	defer waited.Stop()
	for {
		var (
			released []string
			running  []types.UID
		)
		err := d.withLock(ctx, ref.UID, func() (err error) {
			if running, err = d.usedBy(ctx, ref.UID); err != nil || len(running) > 0 {
				return err
			}
			released, err = d.unprepareLocked(ctx, ref)
			return err
		})
		if err != nil || len(running) == 0 {
			return released, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-waited.C:
			return nil, fmt.Errorf("its devices are still in use: processes of pods with the UIDs %v run on this node, kubelet will ask again when they have ended", running)
		case <-time.After(releasePoll):
		}
	}
}

// usedBy returns the pods of a claim that have processes on this node.
func (d *Driver) usedBy(ctx context.Context, uid types.UID) ([]types.UID, error) {
	if _, err := d.loadOrSetAside(ctx, uid); err != nil {
		return nil, err
	}
	has, err := d.belongings(uid)
	if err != nil {
		return nil, err
	}
	return d.options.Processes.Running(has.pods)
}

// unprepareLocked gives back everything a claim has and returns the names of
// its devices. The record goes last: a crash before that leaves enough to go
// on from, and a device that was given back already is another claim's by
// then, which is why only what the claim still holds is released.
func (d *Driver) unprepareLocked(ctx context.Context, ref device.Claim) ([]string, error) {
	if err := faultpoint.At(faultpoint.UnprepareLocked); err != nil {
		return nil, err
	}
	record, err := d.loadOrSetAside(ctx, ref.UID)
	if err != nil {
		return nil, err
	}
	if record != nil { // a lost holding must not keep its device from being released
		if err := d.hold(ctx, record); err != nil {
			return nil, err
		}
	}
	entries, err := d.heldBy(ref.UID)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, entry := range entries {
		if err := d.release(ctx, ref, entry); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := d.cdi.Remove(ref.UID); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.UnprepareCDI); err != nil {
		return nil, err
	}
	if err := d.removeMetadata(ref); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.UnprepareMetadata); err != nil {
		return nil, err
	}
	if err := d.store.Delete(ref.UID); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.UnprepareDeleted); err != nil {
		return nil, err
	}
	if record != nil {
		return deviceNames(record.Devices), nil
	}
	return deviceNames(entries), nil
}

// release undoes one device and gives back what it occupies.
func (d *Driver) release(ctx context.Context, ref device.Claim, entry claimstore.Device) error {
	family, grant, err := d.grantOf(ref, entry)
	if err != nil {
		return err
	}
	if err := family.Release(ctx, grant); err != nil {
		return fmt.Errorf("release device %q: %w", entry.Device, err)
	}
	if err := faultpoint.At(faultpoint.UnprepareFamily); err != nil {
		return err
	}
	for _, thing := range entry.Occupies {
		if err := d.store.Free(thing, ref.UID); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.UnprepareFreed); err != nil {
			return err
		}
	}
	return nil
}

// heldBy returns the devices of which the claim holds something, whether it
// has a record or not. Devices of admin access are not among them: nothing was
// done for those.
func (d *Driver) heldBy(uid types.UID) ([]claimstore.Device, error) {
	holdings, _, err := d.store.Holdings()
	if err != nil {
		return nil, err
	}
	return devicesOf(holdings, uid), nil
}

func devicesOf(holdings map[string]claimstore.Holding, uid types.UID) []claimstore.Device {
	var entries []claimstore.Device
	for _, h := range holdings {
		if h.Claim.UID != uid || slices.ContainsFunc(entries, func(e claimstore.Device) bool { return e.Device == h.Device.Device }) {
			continue
		}
		entries = append(entries, h.Device)
	}
	return entries
}

// undoLog remembers what a prepare did, for when it fails.
type undoLog struct {
	driver *Driver
	claim  device.Claim
	// ready: the claim was prepared before this call, so a container may use
	// what it had.
	ready    bool
	taken    map[string]bool
	prepared []claimstore.Device
}

// took notes that the claim has a thing, and whether it had it before. What a
// crashed prepare left is undone like our own.
func (u *undoLog) took(thing string, had bool) {
	if had && u.ready {
		return
	}
	if u.taken == nil {
		u.taken = map[string]bool{}
	}
	u.taken[thing] = true
}

// run undoes what was done, last first, also when the call's time is up.
func (u *undoLog) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
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
		errs = append(errs, u.removeFiles())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo what was prepared: %w", err)
	}
	return nil
}

func (u *undoLog) free(thing string) error {
	if err := u.driver.store.PutBack(thing, u.claim.UID); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.UndoFreed)
}

// removeFiles removes all that a claim has besides devices. One that cannot be
// removed does not keep the others.
func (u *undoLog) removeFiles() error {
	// A save that failed late may have left a record.
	err := u.driver.store.Delete(u.claim.UID)
	err = errors.Join(err, faultpoint.At(faultpoint.UndoDeleted))
	err = errors.Join(err, u.driver.cdi.Remove(u.claim.UID))
	err = errors.Join(err, faultpoint.At(faultpoint.UndoCDI))
	// A preparation that crashed after it was done may have left these.
	err = errors.Join(err, u.driver.removeMetadata(u.claim))
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
