package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstatus"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	attachWait = time.Minute
	// hookGrace is how much longer than its own wait a container runtime lets
	// the attach hook run: it must be able to say why it fails.
	hookGrace = 15 * time.Second
	// detachTimeout bounds taking a device out again after a failure.
	detachTimeout = 20 * time.Second
)

// checkAttachHook returns an error if a family's devices could not be attached.
func checkAttachHook(o Options) error {
	for _, f := range o.Families {
		if _, ok := f.(Attacher); ok && o.AttachHook == "" {
			return fmt.Errorf("family %s attaches devices to pods, and no attach hook is installed for it", f.Name())
		}
	}
	return nil
}

// addAttachHook makes every container that uses a family's devices in the claim
// wait for those that must be attached.
func (d *Driver) addAttachHook(p *plan, family string, edits map[string]device.Edits) {
	attach := slices.ContainsFunc(p.steps, func(s step) bool { return s.entry.Attach && s.entry.Family == family })
	if !attach {
		return
	}
	hook := &cdispec.Hook{
		HookName: "createRuntime",
		Path:     d.options.AttachHook,
		Args: []string{
			"attach-hook", "--data-dir=" + d.options.DataDir, "--claim=" + string(p.claim.UID),
			"--wait=" + d.options.AttachWait.String(),
		},
		Timeout: ptr.To(int((d.options.AttachWait + hookGrace).Seconds())),
	}
	for name, e := range edits {
		common := cdispec.ContainerEdits{}
		if e.Common != nil {
			common = *e.Common // the family's own stays as it is
		}
		common.Hooks = append(slices.Clip(common.Hooks), hook)
		e.Common = &common
		edits[name] = e
	}
}

// attachClaim joins all devices of a prepared claim that need it to a pod's
// sandbox, or none: what fails takes out again what this call has brought in,
// and nothing that was there before.
func (d *Driver) attachClaim(ctx context.Context, uid types.UID, sandbox device.Sandbox) (*claimstore.Record, error) {
	unlock, err := d.store.Lock(ctx, uid)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := faultpoint.At(faultpoint.AttachLocked); err != nil {
		return nil, err
	}
	has, err := d.belongings(ctx, uid)
	if err != nil {
		return nil, err
	}
	if err := d.checkAttachable(ctx, has); err != nil {
		return has.record, err
	}
	// First of all, so that nothing is taken from a pod that nobody knows.
	if err := d.notePods(has, []types.UID{sandbox.Pod.UID}); err != nil {
		return has.record, err
	}
	return has.record, d.attachAll(ctx, has, sandbox)
}

// checkAttachable returns an error if the claim has no devices that could be
// attached now.
func (d *Driver) checkAttachable(ctx context.Context, has *belongings) error {
	switch {
	case has.record == nil:
		return errors.New("it is not prepared on this node (any more): delete the pod, so that kubelet has it prepared for the next one")
	case has.record.BootID != d.options.BootID:
		return errors.New("it was prepared before this machine was started: kubelet has it prepared again before it starts the pod's containers anew")
	}
	if err := d.holdLost(ctx, has); err != nil {
		return err
	}
	for _, entry := range has.record.Devices {
		if entry.Attach && !has.holds(entry) {
			return &claimstatus.DeviceError{Device: entry, Err: errors.New("another claim has it by now: delete the pod, so that it is scheduled again")}
		}
	}
	return nil
}

func (d *Driver) attachAll(ctx context.Context, has *belongings, sandbox device.Sandbox) (err error) {
	var attached []claimstore.AttachedDevice
	undo := &attachUndo{driver: d, claim: has.record.Claim, sandbox: sandbox}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run(ctx))
		}
	}()
	for _, entry := range has.record.Devices {
		if !entry.Attach {
			continue
		}
		attachment, err := d.attachDevice(ctx, has.record.Claim, entry, sandbox, undo)
		if err != nil {
			return &claimstatus.DeviceError{Device: entry, Err: err}
		}
		attached = append(attached, claimstore.AttachedDevice{Family: entry.Family, Device: entry.Device, Attachment: attachment})
	}
	former := has.record.Attached
	if !has.record.Attach(sandbox, attached) {
		return nil
	}
	d.tellContainers(ctx, has.record)
	if err := d.store.Save(has.record); err != nil {
		// It may have reached the disk all the same.
		has.record.Attached = former
		return errors.Join(err, d.store.Save(has.record))
	}
	undo.changed = nil // it is done
	return faultpoint.At(faultpoint.AttachSaved)
}

func (d *Driver) attachDevice(ctx context.Context, claim device.Claim, entry claimstore.Device, sandbox device.Sandbox, undo *attachUndo) (device.Attachment, error) {
	owner, grant, err := d.grantOf(claim, entry)
	if err != nil {
		return device.Attachment{}, err
	}
	family, ok := owner.(Attacher)
	if !ok {
		return device.Attachment{}, fmt.Errorf("family %q cannot attach devices in this release: delete the pod, so that the claim is prepared by this release", entry.Family)
	}
	attachment, err := family.Attach(ctx, grant, sandbox)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		return device.Attachment{}, err
	}
	if attachment.Changed {
		undo.changed = append(undo.changed, changedDevice{entry, family, grant})
	}
	return attachment, faultpoint.At(faultpoint.AttachFamily)
}

// attachUndo remembers what a call has brought into a sandbox.
type attachUndo struct {
	driver  *Driver
	claim   device.Claim
	sandbox device.Sandbox
	changed []changedDevice
}

type changedDevice struct {
	entry  claimstore.Device
	family Attacher
	grant  device.Grant
}

// run takes everything out again, last first, also when the call's time is up.
func (u *attachUndo) run(ctx context.Context) error {
	if len(u.changed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
	defer cancel()
	var errs []error
	for _, c := range slices.Backward(u.changed) {
		family := c.family
		err := family.Detach(ctx, c.grant, u.sandbox)
		if err == nil {
			err = faultpoint.At(faultpoint.AttachUndone)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take device %q out of the pod again: %w", c.entry.Device, err))
		}
	}
	return errors.Join(errs...)
}

// interfacesIn names the interfaces that a claim's devices are in a sandbox.
func interfacesIn(record *claimstore.Record, sandbox device.Sandbox) string {
	var names []string
	for _, a := range record.Attached {
		if a.Sandbox.ID != sandbox.ID {
			continue
		}
		for _, dev := range a.Devices {
			if dev.Attachment.Interface != "" {
				names = append(names, dev.Attachment.Interface)
			}
		}
	}
	return strings.Join(names, ", ")
}
