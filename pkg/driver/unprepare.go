package driver

import (
	"context"
	"errors"
	"fmt"
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
	defer d.used.send()
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
		err := d.withLock(ctx, ref.UID, func() error {
			has, err := d.belongings(ctx, ref.UID)
			if err != nil {
				return err
			}
			if running, err = d.options.Processes.Running(has.pods()); err != nil || len(running) > 0 {
				return err
			}
			released, err = d.unprepareLocked(ctx, ref, has)
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

// unprepareLocked gives back everything a claim has and returns the names of
// its devices. The record goes last: a crash before that leaves enough to go
// on from, and a device that was given back already is another claim's by
// then, which is why only what the claim still holds is released.
func (d *Driver) unprepareLocked(ctx context.Context, ref device.Claim, has *belongings) ([]string, error) {
	if err := faultpoint.At(faultpoint.UnprepareLocked); err != nil {
		return nil, err
	}
	// First, so that a claim that is released in part is not taken for one that
	// is ready, should it be prepared again.
	if err := d.cdi.Remove(ref.UID); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.UnprepareCDI); err != nil {
		return nil, err
	}
	// A lost holding must not keep its device from being released.
	if err := d.holdLost(ctx, has); err != nil {
		return nil, err
	}
	var errs []error
	for _, entry := range has.heldDevices() {
		if err := d.release(ctx, ref, entry, entry.Occupies); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := d.metadata.Remove(ctx, ref); err != nil {
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
	d.rejoinFor(has.devices())
	return deviceNames(has.devices()), nil
}

// release undoes one device and gives back things that it occupies.
func (d *Driver) release(ctx context.Context, ref device.Claim, entry claimstore.Device, things []string) error {
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
	for _, thing := range things {
		if err := d.store.Free(thing, ref.UID); err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.UnprepareFreed); err != nil {
			return err
		}
	}
	return nil
}
