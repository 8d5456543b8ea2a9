package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// apiTimeout bounds a question to the API server about one claim.
	apiTimeout = 5 * time.Second
	// lockedAPITimeout is the same while the claim's lock is held, for which
	// kubelet may be waiting.
	lockedAPITimeout = time.Second
)

// loadOrSetAside returns a claim's record. One that cannot be read is moved
// out of the way and counts as none: the holdings still say what the claim
// has, and a prepare makes the record anew.
func (d *Driver) loadOrSetAside(ctx context.Context, uid types.UID) (*claimstore.Record, error) {
	record, err := d.store.Load(uid)
	var unreadable *claimstore.UnreadableError
	if !errors.As(err, &unreadable) {
		return record, err
	}
	return nil, d.setAside(ctx, unreadable)
}

func (d *Driver) setAside(ctx context.Context, unreadable *claimstore.UnreadableError) error {
	path, err := d.store.SetAside(ctx, unreadable)
	if err != nil {
		return errors.Join(unreadable, err)
	}
	if path == "" { // mended by somebody else meanwhile
		return nil
	}
	klog.FromContext(ctx).Error(unreadable, "File set aside: its content is made anew from what else is known; the file can be deleted", "path", path)
	return faultpoint.At(faultpoint.MendSetAside)
}

// setAsideHolding deals with a holding that cannot be read: it is moved out of
// the way, and made anew if a claim's record shows that the thing is in use.
func (d *Driver) setAsideHolding(ctx context.Context, err error) error {
	var unreadable *claimstore.UnreadableError
	if !errors.As(err, &unreadable) {
		return err
	}
	if err := d.setAside(ctx, unreadable); err != nil {
		return err
	}
	uids, err := d.store.Claims()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		// Without the claims' locks, as the caller has that of another claim.
		// What is taken for a claim that is unprepared at this moment is found
		// to be abandoned later.
		if err := d.restoreHoldings(ctx, uid); err != nil {
			return err
		}
	}
	return nil
}

// restoreHoldings makes sure that every device of a claim's record is held.
func (d *Driver) restoreHoldings(ctx context.Context, uid types.UID) error {
	record, err := d.store.Load(uid)
	if err != nil || record == nil {
		return nil //nolint:nilerr // unreadable ones are dealt with by whoever holds their lock
	}
	held, err := d.store.HoldingsOf(uid)
	if err != nil {
		return err
	}
	return d.holdLost(ctx, &belongings{record: record, held: held})
}

// recovery is whether what is on disk agrees with itself.
type recovery struct {
	mu   sync.Mutex
	done bool
}

// recovered sees to it that what was found on disk at the start agrees with
// itself. It may fail, on a full disk for example. That is no reason not to give
// devices back, but nothing is prepared before it is done, as a device may lack
// the file that says whose it is. No claim's lock may be held.
func (d *Driver) recovered(ctx context.Context) error {
	d.recovery.mu.Lock()
	defer d.recovery.mu.Unlock()
	if d.recovery.done {
		return nil
	}
	if err := d.recoverState(ctx); err != nil {
		return fmt.Errorf("recover the state in %s: %w", d.options.DataDir, err)
	}
	d.recovery.done = true
	return nil
}

// recoverState makes what is on disk agree with itself: unreadable files out of
// the way, holdings for all records, no CDI spec and no metadata file without a
// claim.
func (d *Driver) recoverState(ctx context.Context) error {
	uids, err := d.store.Claims()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		if err := d.recoverClaim(ctx, uid); err != nil {
			return err
		}
	}
	_, unreadable, err := d.store.Holdings()
	if err != nil {
		return err
	}
	for _, u := range unreadable {
		if err := d.setAside(ctx, u); err != nil {
			return err
		}
	}
	for _, uid := range uids {
		if err := d.withLock(ctx, uid, func() error { return d.restoreHoldings(ctx, uid) }); err != nil {
			return err
		}
	}
	d.removeStrays(ctx)
	return nil
}

// removeStrays removes what claims that are gone have left. A CDI folder that is
// out of order keeps claims from being prepared, which their pods' events then
// say. It is no reason to stop serving the others.
func (d *Driver) removeStrays(ctx context.Context) {
	if err := errors.Join(d.removeStraySpecs(ctx), d.metadata.RemoveStray(ctx)); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "What claims that are gone have left is not removed, it is tried again")
	}
}

func (d *Driver) recoverClaim(ctx context.Context, uid types.UID) error {
	unlock, err := d.store.Lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = d.loadOrSetAside(ctx, uid)
	return err
}

// removeStraySpecs removes CDI specs of claims that have neither a record nor
// anything held: an unprepare was interrupted, or a prepare before it took
// anything.
func (d *Driver) removeStraySpecs(ctx context.Context) error {
	uids, err := d.cdi.Claims()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		err := d.withLock(ctx, uid, func() error {
			record, err := d.store.Load(uid)
			if err != nil || record != nil {
				return err
			}
			if held, err := d.store.HoldingsOf(uid); err != nil || len(held) > 0 {
				return err
			}
			if err := d.cdi.Remove(uid); err != nil {
				return err
			}
			return faultpoint.At(faultpoint.MendSpec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) withLock(ctx context.Context, uid types.UID, do func() error) error {
	unlock, err := d.store.Lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// releaseAbandoned looks, now and at every interval, for claims that nobody
// will unprepare any more, and for what claims that are gone have left: the
// kubeletplugin helper writes metadata files when a claim was prepared, and may
// be overtaken by its release. It tells of claims that no container uses, too.
func (d *Driver) releaseAbandoned(ctx context.Context, interval time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var idle map[types.UID]unattached
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := d.recovered(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Nothing can be prepared yet")
		}
		idle = d.reportUnattached(ctx, idle)
		claims, err := d.knownClaims()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot look for abandoned claims")
		}
		for _, ref := range claims {
			if _, err := d.releaseIfAbandoned(ctx, ref); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Could not tell whether a claim is abandoned, its devices stay with it", "claim", ref)
			}
		}
		d.removeStrays(ctx)
		timer.Reset(interval)
	}
}

// knownClaims returns all claims that have something on this node.
func (d *Driver) knownClaims() ([]device.Claim, error) {
	byUID := map[types.UID]device.Claim{}
	holdings, _, err := d.store.Holdings()
	if err != nil {
		return nil, err
	}
	for _, h := range holdings {
		if h.DevicePlugin == nil {
			byUID[h.Claim.UID] = h.Claim
		}
	}
	uids, err := d.store.Claims()
	if err != nil {
		return nil, err
	}
	for _, uid := range uids {
		if record, err := d.store.Load(uid); err == nil && record != nil {
			byUID[uid] = record.Claim
		}
	}
	claims := make([]device.Claim, 0, len(byUID))
	for _, ref := range byUID {
		claims = append(claims, ref)
	}
	return claims, nil
}

// releaseIfAbandoned unprepares a claim if the API has answered that the claim
// no longer has its devices, and no process of its pods is left. Kubelet
// unprepares a claim once its pod's containers have stopped; this is for when
// it cannot, because it lost track or the plugin was away. A silent API
// releases nothing.
func (d *Driver) releaseIfAbandoned(ctx context.Context, ref device.Claim) (bool, error) {
	// Asked first without the claim's lock: a server that does not answer must
	// not keep kubelet from having the claim unprepared.
	a, err := d.apiAllocation(ctx, ref, apiTimeout)
	if err != nil {
		return false, err
	}
	released := false
	err = d.withLock(ctx, ref.UID, func() error {
		has, err := d.belongings(ctx, ref.UID)
		if err != nil || has.empty() {
			return err
		}
		if a.gives(has.devices()) {
			return d.notePods(has, a.pods)
		}
		running, err := d.options.Processes.Running(has.pods())
		if err != nil || len(running) > 0 {
			return err
		}
		// The claim may have got the devices again since it was asked for.
		a, err := d.apiAllocation(ctx, ref, lockedAPITimeout)
		if err != nil || a.gives(has.devices()) {
			return err
		}
		// What has begun is brought to its end, also if whoever waits for it
		// does not need it any more.
		names, err := d.unprepareLocked(context.WithoutCancel(ctx), ref, has)
		if err != nil {
			return err
		}
		released = true
		klog.FromContext(ctx).Info("Claim released: the API no longer gives it its devices and no process of its pods is left", "claim", klog.KRef(ref.Namespace, ref.Name), "claimUID", ref.UID, "devices", names)
		return nil
	})
	return released, err
}

// apiAllocation returns what the claim is allocated by a fresh answer of the
// API server: nothing, if the API answered that the claim is gone.
func (d *Driver) apiAllocation(ctx context.Context, ref device.Claim, timeout time.Duration) (*allocation, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("no answer"))
	defer cancel()
	claim, err := d.options.KubeClient.ResourceV1().ResourceClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &allocation{claim: ref}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the API server for claim %s: %w", ref, err)
	}
	if claim.UID != ref.UID {
		return &allocation{claim: ref}, nil
	}
	return d.allocationOf(claim), nil
}
