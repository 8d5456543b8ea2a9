package sriov

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// tidyWait bounds how long the cleaning waits for a VF that is being worked on.
const tidyWait = 100 * time.Millisecond

// load returns the journal of a VF, or nil. One that makes no sense is set
// aside, and another one takes its place that knows only whose the VF is, and
// not what it was before: that VF is brought into a safe state when it is
// released.
func (f *Family) load(ctx context.Context, a topology.Address, claim device.Claim) (*vfstate.Journal, error) {
	j, err := f.journal.Load(a)
	var unreadable *vfstate.UnreadableError
	if !errors.As(err, &unreadable) {
		return j, err
	}
	path, err := f.journal.SetAside(a)
	if err != nil {
		return nil, errors.Join(unreadable, err)
	}
	klog.FromContext(ctx).Error(unreadable, "Journal of a VF set aside: what the VF was before the claim is not known any more, so it will be brought into a safe state when the claim ends; the file can be deleted", "device", a, "path", path, "claim", claim)
	j = &vfstate.Journal{BootID: f.opts.BootID, Claim: claim}
	if err := f.journal.Save(a, j); err != nil {
		return nil, err
	}
	return j, f.at(faultpoint.VFJournalRebuilt)
}

// forget removes the journal of a VF that is not there any more, or was reset,
// once CNI plugins have given back what they keep on disk.
func (f *Family) forget(ctx context.Context, a topology.Address, j *vfstate.Journal) error {
	if err := f.deleteNetwork(ctx, a, j); err != nil {
		return err
	}
	if err := f.journal.Delete(a); err != nil {
		return err
	}
	return f.at(faultpoint.VFJournalDeleted)
}

// tidy removes the journals of VFs that are gone, and those of another boot. It
// is done once, when the family first looks at the machine: afterwards each
// journal is dealt with when its claim is.
func (f *Family) tidy(ctx context.Context) {
	logger := klog.FromContext(ctx)
	addresses, err := f.journal.List()
	if err != nil {
		logger.Error(err, "Cannot look for journals of VFs that are gone")
		return
	}
	for _, a := range addresses {
		if err := f.tidyOne(ctx, a); err != nil {
			logger.Error(err, "Journal of a VF not tidied up, its claim's end does it", "device", a)
		}
	}
}

func (f *Family) tidyOne(ctx context.Context, a topology.Address) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tidyWait, errors.New("gave up waiting"))
	unlock, err := f.journal.Lock(ctx, a)
	cancel()
	if err != nil {
		return err
	}
	defer unlock()
	j, err := f.journal.Load(a)
	if err != nil || j == nil {
		return err
	}
	if j.BootID == f.opts.BootID && f.sysfs.Exists(a) {
		return nil
	}
	// What CNI plugins keep is given back by the claim's end, which is not
	// bounded as this is.
	if j.Place != nil && j.Place.CNI {
		return nil
	}
	if err := f.forget(ctx, a, j); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Journal of a VF removed: the VF is gone, or was reset by a reboot", "device", a, "claim", j.Claim)
	return nil
}

// prepared returns the journal of a VF that is prepared for a claim.
func (f *Family) prepared(ctx context.Context, a topology.Address, claim device.Claim) (*vfstate.Journal, error) {
	j, err := f.load(ctx, a, claim)
	switch {
	case err != nil:
		return nil, err
	case j == nil:
		return nil, fmt.Errorf("VF %s is not prepared for claim %s: delete the pod, and its next one has the claim prepared again", a, claim)
	case j.Claim.UID != claim.UID:
		return nil, fmt.Errorf("VF %s is prepared for claim %s and not for claim %s: delete the pod, and its next one has the claim prepared again", a, j.Claim, claim)
	case j.BootID != f.opts.BootID:
		return nil, fmt.Errorf("VF %s was prepared for claim %s before the node was started anew: delete the pod, if kubelet does not prepare the claim again by itself", a, claim)
	}
	return j, nil
}
