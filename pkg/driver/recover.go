package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// apiTimeout bounds a question to the API server about one claim. Kubelet, with
// 45 s for its call, may be waiting for the answer.
const apiTimeout = 5 * time.Second

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
	return d.hold(ctx, record)
}

// hold makes sure that a claim has what its record says, except what another
// claim has by now.
func (d *Driver) hold(ctx context.Context, record *claimstore.Record) error {
	for _, entry := range record.Devices {
		if entry.AdminAccess {
			continue
		}
		for _, thing := range entry.Occupies {
			if err := d.holdThing(ctx, record, entry, thing); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Driver) holdThing(ctx context.Context, record *claimstore.Record, entry claimstore.Device, thing string) error {
	holder, err := d.store.Holder(thing)
	var unreadable *claimstore.UnreadableError
	if errors.As(err, &unreadable) {
		err = d.setAside(ctx, unreadable)
	}
	if err != nil {
		return err
	}
	// The usual case writes nothing, so that a full disk is no hindrance.
	if holder == nil {
		holder, err = d.store.Take(thing, claimstore.Holding{Claim: record.Claim, Pods: record.Pods, Device: entry})
		if err != nil {
			return err
		}
		if err := faultpoint.At(faultpoint.MendHolding); err != nil {
			return err
		}
	}
	if holder != nil && holder.Claim.UID != record.Claim.UID {
		klog.FromContext(ctx).Error(nil, "A device is in the record of a claim while another has it", "device", entry.Device, "claim", record.Claim, "holder", holder.Claim)
	}
	return nil
}

// recoverState makes what is on disk agree with itself at start: unreadable
// files out of the way, holdings for all records, no CDI spec and no metadata
// file without a claim.
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
	// A CDI folder that is out of order keeps claims from being prepared, which
	// their pods' events then say. It is no reason to stop serving the others.
	if err := errors.Join(d.removeStraySpecs(ctx), d.removeStrayMetadata(ctx)); err != nil {
		klog.FromContext(ctx).Error(err, "What claims that are gone have left is not removed, the next start tries again")
	}
	return nil
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
			if held, err := d.heldBy(uid); err != nil || len(held) > 0 {
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
// will unprepare any more.
func (d *Driver) releaseAbandoned(ctx context.Context, interval time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		claims, err := d.knownClaims()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot look for abandoned claims")
		}
		for _, ref := range claims {
			if _, err := d.releaseIfAbandoned(ctx, ref); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Could not tell whether a claim is abandoned, its devices stay with it", "claim", ref)
			}
		}
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
		byUID[h.Claim.UID] = h.Claim
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
	claim, err := d.apiClaim(ctx, ref)
	if err != nil {
		return false, err
	}
	released := false
	err = d.withLock(ctx, ref.UID, func() error {
		has, err := d.belongings(ref.UID)
		if err != nil || has.empty() {
			return err
		}
		if claim != nil && d.gives(claim, has.devices) {
			return d.notePods(has.record, claim)
		}
		running, err := d.options.Processes.Running(has.pods)
		if err != nil || len(running) > 0 {
			return err
		}
		// The claim may have got the devices again since it was asked for.
		claim, err := d.apiClaim(ctx, ref)
		if err != nil || (claim != nil && d.gives(claim, has.devices)) {
			return err
		}
		names, err := d.unprepareLocked(ctx, ref)
		if err != nil {
			return err
		}
		released = true
		klog.FromContext(ctx).Info("Claim released: the API no longer gives it its devices and no process of its pods is left", "claim", klog.KRef(ref.Namespace, ref.Name), "claimUID", ref.UID, "devices", names)
		return nil
	})
	return released, err
}

// belongings are what a claim has on this node.
type belongings struct {
	record  *claimstore.Record // nil if the claim has none
	devices []claimstore.Device
	// pods are those that may use the devices, as far as is known.
	pods []types.UID
}

func (b *belongings) empty() bool { return b.record == nil && len(b.devices) == 0 }

func (d *Driver) belongings(uid types.UID) (*belongings, error) {
	record, err := d.store.Load(uid)
	if err != nil {
		return nil, err
	}
	holdings, _, err := d.store.Holdings()
	if err != nil {
		return nil, err
	}
	has := &belongings{record: record, devices: devicesOf(holdings, uid)}
	for _, h := range holdings {
		if h.Claim.UID == uid {
			has.pods = append(has.pods, h.Pods...)
		}
	}
	if record != nil {
		has.devices = record.Devices
		has.pods = append(has.pods, record.Pods...)
	}
	slices.Sort(has.pods)
	has.pods = slices.Compact(has.pods)
	return has, nil
}

// apiClaim returns the claim from a fresh answer of the API server, or nil if
// the API answered that it is gone.
func (d *Driver) apiClaim(ctx context.Context, ref device.Claim) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, apiTimeout, errors.New("no answer"))
	defer cancel()
	claim, err := d.options.KubeClient.ResourceV1().ResourceClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the API server for claim %s: %w", ref, err)
	}
	if claim.UID != ref.UID {
		return nil, nil
	}
	return claim, nil
}

// gives tells whether the claim is allocated any of the devices.
func (d *Driver) gives(claim *resourceapi.ResourceClaim, entries []claimstore.Device) bool {
	for _, r := range d.ownResults(claim) {
		for _, entry := range entries {
			if r.Pool == entry.Pool && r.Device == entry.Device {
				return true
			}
		}
	}
	return false
}

// notePods adds the pods that share the claim by now to its record. Kubelet
// asks for one preparation only, however many pods use a claim.
func (d *Driver) notePods(record *claimstore.Record, claim *resourceapi.ResourceClaim) error {
	if record == nil {
		return nil
	}
	changed := false
	for _, uid := range podUIDs(claim) {
		if !slices.Contains(record.Pods, uid) {
			record.Pods = append(record.Pods, uid)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := d.store.Save(record); err != nil {
		return err
	}
	return faultpoint.At(faultpoint.MendPods)
}
