package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Detach takes a VF out of a sandbox, if it is there, and leaves it prepared: on
// the host, down, under its own name.
func (f *Family) Detach(ctx context.Context, grant device.Grant, sandbox device.Sandbox) error {
	start := time.Now()
	address, err := addressOf(grant)
	if err != nil || grant.AdminAccess {
		return err
	}
	unlock, err := f.journal.Lock(ctx, address)
	if err != nil {
		return err
	}
	defer unlock()
	j, err := f.load(ctx, address, grant.Claim)
	if err != nil || j == nil || j.Claim.UID != grant.Claim.UID || j.Place == nil || j.Place.Sandbox.ID != sandbox.ID {
		return err
	}
	place := j.Place
	if err := f.takeBack(ctx, address, j, nil); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("VF detached", "claim", grant.Claim, "pod", place.Sandbox.Pod, "device", address, "interface", place.Interface, "duration", time.Since(start))
	return nil
}

// Release takes a VF out of any sandbox and makes it what it was before its
// claim.
func (f *Family) Release(ctx context.Context, grant device.Grant) error {
	start := time.Now()
	address, err := addressOf(grant)
	if err != nil || grant.AdminAccess {
		return err
	}
	unlock, err := f.journal.Lock(ctx, address)
	if err != nil {
		return err
	}
	defer unlock()
	j, err := f.load(ctx, address, grant.Claim)
	if err != nil {
		return err
	}
	if j == nil {
		return f.journal.Delete(address) // what an interrupted write has left
	}
	if j.Claim.UID != grant.Claim.UID {
		return nil
	}
	place := j.Place
	if err := f.end(ctx, address, j); err != nil {
		return err
	}
	logger := klog.FromContext(ctx).WithValues("claim", grant.Claim, "device", address, "duration", time.Since(start))
	if place != nil {
		logger = logger.WithValues("pod", place.Sandbox.Pod, "interface", place.Interface)
	}
	logger.Info("VF released")
	return nil
}

// end undoes everything that the journal tells of, and removes it last.
func (f *Family) end(ctx context.Context, a topology.Address, j *vfstate.Journal) error {
	if j.BootID != f.opts.BootID {
		return f.forget(ctx, a, j) // the reboot has reset the VF
	}
	fn, err := f.function(a)
	if errors.Is(err, fs.ErrNotExist) {
		return f.forget(ctx, a, j)
	}
	if err != nil {
		return err
	}
	if err := f.takeBack(ctx, a, j, nil); err != nil {
		return err
	}
	if err := f.restore(ctx, fn, j); err != nil {
		return err
	}
	if err := f.journal.Delete(a); err != nil {
		return err
	}
	return f.at(faultpoint.VFJournalDeleted)
}

// restore makes a VF on the host what it was.
func (f *Family) restore(ctx context.Context, fn function, j *vfstate.Journal) error {
	if err := f.restoreDriver(fn, j); err != nil {
		return err
	}
	if err := f.at(faultpoint.VFDriverRestored); err != nil {
		return err
	}
	host := f.kernel.Host()
	links, err := host.Links()
	if err != nil {
		return fmt.Errorf("list the host's network interfaces: %w", err)
	}
	pf := pickPF(links, fn)
	if pf != nil {
		if err := restoreSettings(ctx, host, pf, fn, j); err != nil {
			return err
		}
	} else if known(j.Applied) {
		return noPF(fn)
	}
	if err := f.at(faultpoint.VFSettingsRestored); err != nil {
		return err
	}
	if err := f.restoreInterface(ctx, fn, j); err != nil {
		return err
	}
	return f.at(faultpoint.VFInterfaceReset)
}

func (f *Family) restoreDriver(fn function, j *vfstate.Journal) error {
	if j.Former != nil {
		return f.drivers.Bind(fn.address, vfio.Binding{Driver: j.Former.Driver, Override: j.Former.DriverOverride})
	}
	now, err := f.drivers.Binding(fn.address)
	if err != nil || now.Override != vfio.Driver {
		return err
	}
	return f.drivers.Default(fn.address)
}

// restoreInterface makes the interface on the host what it was: down, with its
// own address, MTU and name.
func (f *Family) restoreInterface(ctx context.Context, fn function, j *vfstate.Journal) error {
	host := f.kernel.Host()
	link, err := linkOf(host, fn.address)
	if err != nil {
		return err
	}
	if link == nil {
		if link, err = f.lateLink(ctx, fn, j); err != nil || link == nil {
			return err
		}
	}
	var mac string
	mtu := link.MTU
	if j.Former != nil {
		mac, mtu = j.Former.HardwareAddress, j.Former.MTU
	}
	return f.reset(ctx, fn, j, link, mac, mtu)
}

// lateLink waits for the interface that a VF had before. It returns nil if it is
// right that there is none.
func (f *Family) lateLink(ctx context.Context, fn function, j *vfstate.Journal) (*kernel.Link, error) {
	binding, err := f.drivers.Binding(fn.address)
	if err != nil || binding.Driver == "" || binding.Driver == vfio.Driver || (j.Former != nil && j.Former.Interface == "") {
		return nil, err
	}
	link, err := f.awaitLink(ctx, f.kernel.Host(), fn.address)
	if err != nil || link != nil {
		return link, err
	}
	if j.Former == nil {
		return nil, fmt.Errorf("the interface of VF %s is not on the host, and the journal that said which pod has it was lost: it comes back when that pod's network namespace ends", fn.address)
	}
	// Keeping the claim would not help: discovery reports the VF.
	klog.FromContext(ctx).Error(nil, "VF shows no network interface after its release, as it did before", "device", fn.address, "interface", j.Former.Interface)
	return nil, nil
}

// formerNames are the further names that a VF's interface had before its claim.
func formerNames(j *vfstate.Journal) []string {
	if j.Former == nil {
		return nil
	}
	return slices.Clone(j.Former.AltNames)
}

// reset brings an interface on the host into the state in which it waits there.
func (f *Family) reset(ctx context.Context, fn function, j *vfstate.Journal, link *kernel.Link, mac string, mtu int) error {
	host := f.kernel.Host()
	if link.Up {
		if err := host.SetDown(link.Index); err != nil {
			return fmt.Errorf("set interface %s of VF %s down: %w", link.Name, fn.address, err)
		}
	}
	if err := host.Clean(link.Index, formerNames(j)); err != nil {
		return fmt.Errorf("take what a pod has left from interface %s of VF %s: %w", link.Name, fn.address, err)
	}
	link, err := f.setAddress(ctx, fn, link, mac)
	if err != nil {
		return err
	}
	if mtu != 0 && link.MTU != mtu {
		if err := host.SetMTU(link.Index, mtu); err != nil {
			return fmt.Errorf("set the MTU of interface %s of VF %s back to %d: %w", link.Name, fn.address, mtu, err)
		}
	}
	return f.nameBack(ctx, fn, j, link)
}
