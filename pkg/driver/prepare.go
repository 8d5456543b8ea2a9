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
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstatus"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// PrepareResourceClaims makes the devices of claims ready, each claim by
// itself and all at the same time.
func (d *Driver) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	d.calls.RLock()
	defer d.calls.RUnlock()
	defer d.used.send()
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
	a := d.allocationOf(claim)
	logger := klog.FromContext(ctx).WithValues("claim", klog.KObj(claim), "claimUID", claim.UID, "pods", consumers(claim))
	record, err := d.prepareWhenFree(klog.NewContext(ctx, logger), a)
	if err == nil {
		err = faultpoint.At(faultpoint.PrepareAnswer)
	}
	observe(d.options.Metrics.prepareSeconds, start, err)
	if err != nil {
		err = fmt.Errorf("prepare claim %s: %w", a.claim, err)
		logger.Error(err, "Claim not prepared", "duration", time.Since(start))
		return kubeletplugin.PrepareResult{Err: err}
	}
	d.rejoinFor(record.Devices)
	logger.Info("Claim prepared", "devices", deviceNames(record.Devices), "duration", time.Since(start))
	return kubeletplugin.PrepareResult{Devices: answer(record)}
}

func (d *Driver) prepareLocked(ctx context.Context, a *allocation) (*claimstore.Record, error) {
	unlock, err := d.store.Lock(ctx, a.claim.UID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := faultpoint.At(faultpoint.PrepareLocked); err != nil {
		return nil, err
	}
	before, ready, err := d.earlierWork(ctx, a)
	if err != nil {
		return nil, err
	}
	if ready {
		return before.record, nil
	}
	p, err := d.plan(a)
	var record *claimstore.Record
	if before != nil {
		record = before.record
		if record.BootID != d.options.BootID {
			err = errors.Join(err, d.endFormerBoot(ctx, before, p))
		}
	}
	if err != nil {
		return nil, err
	}
	return d.carryOut(ctx, p, record)
}

// earlierWork returns what the claim has by an earlier preparation of this
// allocation, or nil, and whether nothing is left to be done.
func (d *Driver) earlierWork(ctx context.Context, a *allocation) (_ *belongings, ready bool, err error) {
	record, err := d.loadOrSetAside(ctx, a.claim.UID)
	if err != nil || record == nil {
		return nil, false, err
	}
	has, err := d.belongings(ctx, a.claim.UID)
	if err != nil {
		return nil, false, err
	}
	if !a.isOf(record) {
		return nil, false, d.endFormerAllocation(ctx, has)
	}
	if record.BootID != d.options.BootID {
		return has, false, nil
	}
	ready, err = d.stillReady(ctx, a, has)
	return has, ready, err
}

// endFormerAllocation gives back what a claim had before it was deallocated
// and allocated anew, once no pod uses that any more.
func (d *Driver) endFormerAllocation(ctx context.Context, has *belongings) error {
	former := has.record
	running, err := d.options.Processes.Running(has.pods())
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return &busyError{device: strings.Join(deviceNames(former.Devices), ", "), holder: former.Claim}
	}
	klog.FromContext(ctx).Info("The claim was allocated anew, what it had is released", "devices", deviceNames(former.Devices))
	_, err = d.unprepareLocked(ctx, former.Claim, has)
	return err
}

// endFormerBoot gives back what a claim had before the machine was started and
// does not have by the plan, or all of it if there is no plan. If a device has
// failed, others may have got its name, and the claims of those wait for each
// other otherwise.
func (d *Driver) endFormerBoot(ctx context.Context, has *belongings, p *plan) error {
	running, err := d.options.Processes.Running(has.pods())
	if err != nil || len(running) > 0 {
		return err
	}
	if p == nil {
		_, err := d.unprepareLocked(ctx, has.record.Claim, has)
		return err
	}
	wanted := p.wanted()
	for _, entry := range has.heldDevices() {
		former := slices.DeleteFunc(slices.Clone(entry.Occupies), func(thing string) bool { return wanted[thing] != nil })
		if len(former) == 0 {
			continue
		}
		klog.FromContext(ctx).Info("The device is another one since the machine was started, the former is released", "device", entry.Device, "former", former)
		if err := d.release(ctx, p.claim, entry, former); err != nil {
			return err
		}
	}
	return nil
}

// stillReady tells whether a claim's record, of this boot, still says all there
// is to say: devices held, CDI specs in place.
func (d *Driver) stillReady(ctx context.Context, a *allocation, has *belongings) (bool, error) {
	if err := d.holdLost(ctx, has); err != nil {
		return false, err
	}
	for _, entry := range has.record.Devices {
		// A record of another release may lack what kubelet must be told.
		if len(entry.CDIDeviceIDs) == 0 || !d.cdi.Exists(entry.Family, a.claim.UID) || !has.holds(entry) {
			return false, nil
		}
	}
	return true, d.notePods(has, a.pods)
}

// carryOut does what was planned. What fails leaves nothing behind, except what
// the claim had before: a container may be using that.
func (d *Driver) carryOut(ctx context.Context, p *plan, before *claimstore.Record) (_ *claimstore.Record, err error) {
	if err := faultpoint.At(faultpoint.PreparePlanned); err != nil {
		return nil, err
	}
	undo := &undoLog{driver: d, claim: p.claim, ready: before != nil}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run(ctx))
		}
	}()
	if err := d.takeAll(ctx, p, undo); err != nil {
		return nil, err
	}
	edits := map[string]map[string]device.Edits{}
	for n := range p.steps {
		if err := d.carryOutStep(ctx, &p.steps[n], edits, undo); err != nil {
			return nil, err
		}
	}
	d.align(klog.FromContext(ctx), p)
	d.addNCCL(p, edits)
	for family, byDevice := range edits {
		d.addAttachHook(p, family, byDevice)
		if err := d.cdi.Write(p.claim, family, byDevice); err != nil {
			return nil, err
		}
		if err := faultpoint.At(faultpoint.PrepareCDI); err != nil {
			return nil, err
		}
	}
	record := p.record(d.options.BootID, before)
	if err := d.store.Save(record); err != nil {
		return nil, err
	}
	if err := faultpoint.At(faultpoint.PrepareSaved); err != nil {
		return nil, err
	}
	if d.statuses != nil && len(record.Alignment) > 0 {
		d.statuses.Prepared(ctx, p.claim.UID)
	}
	return record, nil
}

// takeAll takes everything that the plan occupies, or nothing. The order is the
// same for every claim, so that two never wait for each other.
func (d *Driver) takeAll(ctx context.Context, p *plan, undo *undoLog) error {
	wanted := p.wanted()
	for _, thing := range slices.Sorted(maps.Keys(wanted)) {
		if err := d.take(ctx, thing, wanted[thing], p.pods, undo); err != nil {
			return err
		}
	}
	return nil
}

// wanted is everything that the plan occupies.
func (p *plan) wanted() map[string]*step {
	wanted := map[string]*step{}
	for n := range p.steps {
		s := &p.steps[n]
		if s.grant.AdminAccess {
			continue
		}
		for _, thing := range s.grant.Occupies {
			wanted[thing] = s
		}
	}
	return wanted
}

func (d *Driver) take(ctx context.Context, thing string, s *step, pods []types.UID, undo *undoLog) error {
	had, err := d.store.Holds(s.grant.Claim.UID, thing)
	if err != nil {
		if err := d.setAsideHolding(ctx, err); err != nil {
			return err
		}
		if had, err = d.store.Holds(s.grant.Claim.UID, thing); err != nil {
			return err
		}
	}
	holder, err := d.store.Take(thing, claimstore.Holding{Claim: s.grant.Claim, Pods: pods, Device: s.entry})
	if err != nil {
		return err
	}
	if holder != nil {
		busy := &busyError{device: s.grant.Device, holder: holder.Claim}
		if holder.DevicePlugin != nil {
			busy.other = holder.Holder()
		}
		return busy
	}
	undo.took(thing, had)
	return faultpoint.At(faultpoint.PrepareTaken)
}

func (d *Driver) carryOutStep(ctx context.Context, s *step, edits map[string]map[string]device.Edits, undo *undoLog) error {
	if !s.grant.AdminAccess {
		undo.prepared = append(undo.prepared, s.entry)
	}
	e, err := s.family.Prepare(ctx, s.grant)
	if err == nil {
		err = faultpoint.At(faultpoint.PrepareFamily)
	}
	if err != nil {
		err = fmt.Errorf("device %q (request %q): %w", s.grant.Device, s.grant.Request, err)
		if dev, ok := d.inventory.device(s.grant.Device); ok && len(dev.problems) > 0 {
			err = fmt.Errorf("%w; the device is unhealthy: %s", err, dev.complaint())
		}
		return err
	}
	name := s.family.Name()
	if edits[name] == nil {
		edits[name] = map[string]device.Edits{}
	}
	if _, had := edits[name][s.grant.Device]; !had || !s.grant.AdminAccess {
		edits[name][s.grant.Device] = e // of a request that only looks, what it has by another counts
	}
	s.entry.Attach = e.Attach && !s.grant.AdminAccess // who only looks moves nothing
	s.entry.CDIDeviceIDs = []string{d.cdi.DeviceID(name, s.grant.Claim.UID, s.grant.Device)}
	s.entry.Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}
	maps.Copy(s.entry.Attributes, s.published)
	maps.Copy(s.entry.Attributes, e.Attributes)
	return nil
}

// answer is what kubelet is told about a prepared claim: one device for each
// allocation result, also where several families have prepared it.
func answer(r *claimstore.Record) []kubeletplugin.Device {
	devices := make([]kubeletplugin.Device, 0, len(r.Devices))
	for n, entry := range r.Devices {
		if n == 0 || !sameResult(r.Devices[n-1], entry) {
			devices = append(devices, kubeletplugin.Device{
				Requests: []string{entry.Request}, PoolName: entry.Pool, DeviceName: entry.Device, ShareID: entry.ShareID,
				Metadata: &kubeletplugin.DeviceMetadata{Attributes: map[string]resourceapi.DeviceAttribute{}},
			})
		}
		last := &devices[len(devices)-1]
		last.CDIDeviceIDs = append(last.CDIDeviceIDs, entry.CDIDeviceIDs...)
		for name, value := range entry.Attributes {
			last.Metadata.Attributes[string(name)] = value
		}
		if _, attachment, ok := r.Attachment(entry); ok {
			last.Metadata.NetworkData = claimstatus.NetworkData(attachment)
		}
	}
	return devices
}

// deviceNames names each device once, also where several families prepare it.
func deviceNames(devices []claimstore.Device) []string {
	var names []string
	for _, entry := range devices {
		if !slices.Contains(names, entry.Device) {
			names = append(names, entry.Device)
		}
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
