package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// releaseWait is how long a prepare waits for a device that another claim
	// still holds. Kubelet gives up on a call after 45 s.
	releaseWait = 40 * time.Second
	// releasePoll is how often a waiting prepare looks whether another
	// instance of the plugin has given the device back.
	releasePoll = 100 * time.Millisecond
	// abandonedPoll is how often a waiting prepare asks the API server whether
	// the holder still has the device.
	abandonedPoll = 2 * time.Second
)

// busyError says that another claim has a thing that is needed.
type busyError struct {
	device string
	holder device.Claim
}

func (e *busyError) Error() string {
	return fmt.Sprintf("device %q is still prepared for claim %s", e.device, e.holder)
}

// PrepareResourceClaims makes the devices of claims ready, each claim by
// itself and all at the same time.
func (d *Driver) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	d.calls.RLock()
	defer d.calls.RUnlock()
	results := make([]kubeletplugin.PrepareResult, len(claims))
	var wg sync.WaitGroup
	for n, claim := range claims {
		wg.Go(func() { results[n] = d.prepareClaim(ctx, claim) })
	}
	wg.Wait()
	byUID := make(map[types.UID]kubeletplugin.PrepareResult, len(claims))
	for n, claim := range claims {
		byUID[claim.UID] = results[n]
	}
	return byUID, nil
}

func (d *Driver) prepareClaim(ctx context.Context, claim *resourceapi.ResourceClaim) kubeletplugin.PrepareResult {
	start := time.Now()
	ref := claimRef(claim)
	logger := klog.FromContext(ctx).WithValues("claim", klog.KObj(claim), "claimUID", claim.UID, "pods", consumers(claim))
	record, err := d.prepareWhenFree(klog.NewContext(ctx, logger), ref, claim)
	if err == nil {
		err = faultpoint.At(faultpoint.PrepareAnswer)
	}
	observe(d.options.Metrics.prepareSeconds, start, err)
	if err != nil {
		err = fmt.Errorf("prepare claim %s: %w", ref, err)
		logger.Error(err, "Claim not prepared", "duration", time.Since(start))
		return kubeletplugin.PrepareResult{Err: err}
	}
	logger.Info("Claim prepared", "devices", deviceNames(record.Devices), "duration", time.Since(start))
	return kubeletplugin.PrepareResult{Devices: answer(record)}
}

// prepareWhenFree waits for devices that another claim has not given back yet:
// kubelet unprepares a claim only when all containers of its pod have stopped,
// and the scheduler may give the device away before that. Failing instead
// would send the pod into kubelet's backoff for far longer than the wait.
func (d *Driver) prepareWhenFree(ctx context.Context, ref device.Claim, claim *resourceapi.ResourceClaim) (*claimstore.Record, error) {
	if err := faultpoint.At(faultpoint.PrepareReceived); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.options.ReleaseWait, errors.New("gave up waiting"))
	defer cancel()
	logged, looked := false, time.Time{}
	for {
		freed := d.store.Freed()
		record, err := d.prepareLocked(ctx, ref, claim)
		var busy *busyError
		if err == nil || !errors.As(err, &busy) {
			return record, err
		}
		if !logged {
			klog.FromContext(ctx).Info("Waiting for a device's release", "device", busy.device, "holder", busy.holder)
			logged = true
		}
		if time.Since(looked) >= abandonedPoll {
			looked = time.Now()
			if released, lookErr := d.releaseIfAbandoned(ctx, busy.holder); lookErr != nil {
				klog.FromContext(ctx).Error(lookErr, "Cannot tell whether the holder is abandoned", "device", busy.device, "holder", busy.holder)
			} else if released {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: waited for its release, and kubelet will try again: if that claim's pod is gone, see the plugin's log for why the claim was not unprepared", err)
		case <-freed:
		case <-time.After(releasePoll):
		}
	}
}

func (d *Driver) prepareLocked(ctx context.Context, ref device.Claim, claim *resourceapi.ResourceClaim) (*claimstore.Record, error) {
	unlock, err := d.store.Lock(ctx, ref.UID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := faultpoint.At(faultpoint.PrepareLocked); err != nil {
		return nil, err
	}

	results := d.ownResults(claim)
	if len(results) == 0 {
		return nil, errNoDevice
	}
	before, err := d.loadOrSetAside(ctx, ref.UID)
	if err != nil {
		return nil, err
	}
	if before != nil && !sameAllocation(before, results) {
		if err := d.endFormerAllocation(ctx, ref, before); err != nil {
			return nil, err
		}
		before = nil
	}
	if before != nil {
		if err := d.hold(ctx, before); err != nil {
			return nil, err
		}
		ready, err := d.ready(before)
		if err != nil {
			return nil, err
		}
		if ready {
			return before, d.notePods(before, claim)
		}
	}
	return d.prepareSteps(ctx, ref, claim, results, before)
}

// sameAllocation tells whether a record is of this allocation of its claim.
func sameAllocation(r *claimstore.Record, results []resourceapi.DeviceRequestAllocationResult) bool {
	return slices.EqualFunc(r.Devices, results, func(entry claimstore.Device, result resourceapi.DeviceRequestAllocationResult) bool {
		return entry.Request == result.Request && entry.Pool == result.Pool && entry.Device == result.Device
	})
}

// endFormerAllocation gives back what a claim had before it was deallocated
// and allocated anew, once no pod uses that any more.
func (d *Driver) endFormerAllocation(ctx context.Context, ref device.Claim, former *claimstore.Record) error {
	running, err := d.options.Processes.Running(former.Pods)
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return &busyError{device: strings.Join(deviceNames(former.Devices), ", "), holder: former.Claim}
	}
	klog.FromContext(ctx).Info("The claim was allocated anew, what it had is released", "devices", deviceNames(former.Devices))
	_, err = d.unprepareLocked(ctx, ref)
	return err
}

// ready tells whether a record still says all there is to say: same boot,
// devices held, CDI specs in place.
func (d *Driver) ready(r *claimstore.Record) (bool, error) {
	if r.BootID != d.options.BootID {
		return false, nil
	}
	for _, entry := range r.Devices {
		// A record of another release may lack what kubelet must be told.
		if len(entry.CDIDeviceIDs) == 0 || !d.cdi.Exists(entry.Family, r.Claim.UID) {
			return false, nil
		}
		if entry.AdminAccess {
			continue
		}
		holds, err := d.store.Holds(r.Claim.UID, entry.Occupies)
		if err != nil || !holds {
			return false, err
		}
	}
	return true, nil
}

// prepareSteps does the work. What fails leaves nothing behind, except what
// the claim had before: a container may be using that.
func (d *Driver) prepareSteps(ctx context.Context, ref device.Claim, claim *resourceapi.ResourceClaim, results []resourceapi.DeviceRequestAllocationResult, before *claimstore.Record) (_ *claimstore.Record, err error) {
	steps, err := d.plan(ref, claim, results)
	if err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.PreparePlanned); err != nil {
		return nil, err
	}
	undo := &undoLog{driver: d, claim: ref, ready: before != nil}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run(ctx))
		}
	}()
	if err := d.takeAll(ctx, steps, podUIDs(claim), undo); err != nil {
		return nil, err
	}
	edits := map[string]map[string]device.Edits{}
	for n := range steps {
		if err := d.prepareStep(ctx, &steps[n], edits, undo); err != nil {
			return nil, err
		}
	}
	for family, byDevice := range edits {
		if err := d.cdi.Write(ref, family, byDevice); err != nil {
			return nil, err
		}
		if err := faultpoint.At(faultpoint.PrepareCDI); err != nil {
			return nil, err
		}
	}
	record := &claimstore.Record{}
	if before != nil {
		*record = *before // with the fields of other releases
	}
	record.Claim, record.BootID, record.Pods, record.Devices = ref, d.options.BootID, podUIDs(claim), nil
	for _, s := range steps {
		record.Devices = append(record.Devices, s.entry)
	}
	if err := d.store.Save(record); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.PrepareSaved); err != nil {
		return nil, err
	}
	return record, nil
}

// takeAll takes everything that the steps occupy, or nothing. The order is the
// same for every claim, so that two never wait for each other.
func (d *Driver) takeAll(ctx context.Context, steps []step, pods []types.UID, undo *undoLog) error {
	wanted := map[string]*step{}
	for n := range steps {
		s := &steps[n]
		if s.grant.AdminAccess {
			continue
		}
		for _, thing := range s.grant.Occupies {
			wanted[thing] = s
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(wanted)) {
		s := wanted[thing]
		if err := d.take(ctx, thing, s, pods, undo); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) take(ctx context.Context, thing string, s *step, pods []types.UID, undo *undoLog) error {
	had, err := d.store.Holds(s.grant.Claim.UID, []string{thing})
	if err != nil {
		if err := d.setAsideHolding(ctx, err); err != nil {
			return err
		}
		if had, err = d.store.Holds(s.grant.Claim.UID, []string{thing}); err != nil {
			return err
		}
	}
	holder, err := d.store.Take(thing, claimstore.Holding{Claim: s.grant.Claim, Pods: pods, Device: s.entry})
	if err != nil {
		return err
	}
	if holder != nil {
		return &busyError{device: s.grant.Device, holder: holder.Claim}
	}
	undo.took(thing, had)
	return faultpoint.At(faultpoint.PrepareTaken)
}

func (d *Driver) prepareStep(ctx context.Context, s *step, edits map[string]map[string]device.Edits, undo *undoLog) error {
	if !s.grant.AdminAccess {
		undo.prepared = append(undo.prepared, s.entry)
	}
	e, err := s.family.Prepare(ctx, s.grant)
	if err == nil {
		err = faultpoint.At(faultpoint.PrepareFamily)
	}
	if err != nil {
		return fmt.Errorf("device %q (request %q): %w", s.grant.Device, s.grant.Request, err)
	}
	name := s.family.Name()
	if edits[name] == nil {
		edits[name] = map[string]device.Edits{}
	}
	edits[name][s.grant.Device] = e
	s.entry.CDIDeviceIDs = []string{d.cdi.DeviceID(name, s.grant.Claim.UID, s.grant.Device)}
	s.entry.Attributes = maps.Clone(s.published)
	if s.entry.Attributes == nil {
		s.entry.Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}
	}
	maps.Copy(s.entry.Attributes, e.Attributes)
	return nil
}

// answer is what kubelet is told about a prepared claim.
func answer(r *claimstore.Record) []kubeletplugin.Device {
	devices := make([]kubeletplugin.Device, 0, len(r.Devices))
	for _, entry := range r.Devices {
		attributes := make(map[string]resourceapi.DeviceAttribute, len(entry.Attributes))
		for name, value := range entry.Attributes {
			attributes[string(name)] = value
		}
		devices = append(devices, kubeletplugin.Device{
			Requests: []string{entry.Request}, PoolName: entry.Pool, DeviceName: entry.Device,
			CDIDeviceIDs: entry.CDIDeviceIDs, ShareID: entry.ShareID,
			Metadata: &kubeletplugin.DeviceMetadata{Attributes: attributes},
		})
	}
	return devices
}

func deviceNames(devices []claimstore.Device) []string {
	names := make([]string, len(devices))
	for n, entry := range devices {
		names[n] = entry.Device
	}
	return names
}

func consumers(claim *resourceapi.ResourceClaim) []string {
	var names []string
	for _, c := range claim.Status.ReservedFor {
		names = append(names, c.Name)
	}
	return names
}
