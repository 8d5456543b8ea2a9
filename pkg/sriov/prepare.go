package sriov

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Prepare sets a VF up as its claim says, and returns what containers need for
// it. What the VF was before is in its journal first. A VF that a pod has is
// left as it is, and one of admin access too.
func (f *Family) Prepare(ctx context.Context, grant device.Grant) (device.Edits, error) {
	config, ok := grant.Config.(*v1alpha1.VfConfig)
	if !ok {
		return device.Edits{}, fmt.Errorf("a VF cannot be configured by a %T: use kind %s", grant.Config, v1alpha1.VfConfigKind)
	}
	address, err := addressOf(grant)
	if err != nil {
		return device.Edits{}, err
	}
	if grant.AdminAccess {
		return f.edits(ctx, address, config, nil)
	}
	unlock, err := f.journal.Lock(ctx, address)
	if err != nil {
		return device.Edits{}, err
	}
	defer unlock()
	fn, err := f.function(address)
	if err != nil {
		return device.Edits{}, err
	}
	j, err := f.begin(ctx, grant, config, fn)
	if err != nil {
		return device.Edits{}, err
	}
	if j.Place == nil {
		if err := f.setUp(ctx, fn, config, j); err != nil {
			return device.Edits{}, err
		}
	}
	return f.edits(ctx, address, config, j)
}

// begin returns the journal of the VF for this claim, on disk, with all that is
// needed to undo what comes next.
func (f *Family) begin(ctx context.Context, grant device.Grant, config *v1alpha1.VfConfig, fn function) (*vfstate.Journal, error) {
	j, err := f.load(ctx, fn.address, grant.Claim)
	if err != nil {
		return nil, err
	}
	switch {
	case j == nil:
	case j.BootID != f.opts.BootID:
		// The reboot has reset the VF, but not what CNI plugins keep on disk.
		if err := f.forget(ctx, fn.address, j); err != nil {
			return nil, err
		}
		j = nil
	case j.Claim.UID != grant.Claim.UID:
		klog.FromContext(ctx).Info("VF is still set up for a claim that no longer has it, which is undone first", "device", fn.address, "formerClaim", j.Claim)
		if err := f.end(ctx, fn.address, j); err != nil {
			return nil, fmt.Errorf("undo what claim %s has left: %w", j.Claim, err)
		}
		j = nil
	case j.Place != nil || j.Former == nil:
		return j, nil
	}
	return f.write(ctx, grant, config, fn, j)
}

// write makes the journal of a claim, or brings one up to date that a
// preparation before this one has written.
func (f *Family) write(ctx context.Context, grant device.Grant, config *v1alpha1.VfConfig, fn function, earlier *vfstate.Journal) (*vfstate.Journal, error) {
	j := earlier
	if j == nil {
		j = &vfstate.Journal{BootID: f.opts.BootID, Claim: grant.Claim}
		var err error
		if j.Former, err = f.capture(ctx, fn, config); err != nil {
			return nil, err
		}
		if err := f.resolve(ctx, grant, config, j); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of VF %s: %w", fn.address, err)
	}
	j.Config, j.Applied = raw, wanted(config, j.Former.Settings)
	if err := f.journal.Save(fn.address, j); err != nil {
		return nil, err
	}
	return j, f.at(faultpoint.VFJournalWritten)
}

// capture reads what a VF is before anything is changed, and refuses what
// cannot work.
func (f *Family) capture(ctx context.Context, fn function, config *v1alpha1.VfConfig) (*vfstate.Former, error) {
	binding, err := f.drivers.Binding(fn.address)
	if err != nil {
		return nil, err
	}
	links, err := f.kernel.Host().Links()
	if err != nil {
		return nil, fmt.Errorf("list the host's network interfaces: %w", err)
	}
	link, pf := pick(links, fn.address), pickPF(links, fn)
	if config.Mode != v1alpha1.VfModeVFIO && link == nil {
		if link, err = f.missingLink(ctx, fn, config, binding); err != nil {
			return nil, err
		}
	}
	was := &vfstate.Former{Driver: binding.Driver, DriverOverride: binding.Override}
	for _, l := range []*kernel.Link{link, pf} {
		if l != nil {
			if err := checkLinkType(config, l.Type); err != nil {
				return nil, err
			}
		}
	}
	if link != nil {
		was.Interface, was.AltNames, was.HardwareAddress, was.MTU = link.Name, link.AltNames, link.HardwareAddress.String(), link.MTU
	}
	if pf != nil {
		was.Settings = fromKernel(pf.VFs[fn.index])
	} else if known(wanted(config, was.Settings)) {
		return nil, noPF(fn)
	}
	return was, nil
}

// missingLink waits for an interface that should be there. In rdma mode there
// may be none.
func (f *Family) missingLink(ctx context.Context, fn function, config *v1alpha1.VfConfig, binding vfio.Binding) (*kernel.Link, error) {
	switch {
	case binding.Driver == "":
		return nil, fmt.Errorf("VF %s has no driver, so it cannot be used in mode %s: bind its driver, or use mode %s", fn.address, config.Mode, v1alpha1.VfModeVFIO)
	case binding.Driver == vfio.Driver:
		return nil, fmt.Errorf("VF %s is bound to %s on the host, so it cannot be used in mode %s: use mode %s, or bind its network driver", fn.address, vfio.Driver, config.Mode, v1alpha1.VfModeVFIO)
	case config.Mode == v1alpha1.VfModeRDMA:
		return nil, nil
	}
	link, err := f.awaitLink(ctx, f.kernel.Host(), fn.address)
	if err != nil || link != nil {
		return link, err
	}
	return nil, fmt.Errorf("VF %s shows no network interface in the host's network namespace (driver %s): something else has moved it to another one, or its driver has failed, which the kernel's log then tells", fn.address, binding.Driver)
}

// resolve finds the CNI configurations that a claim asks for, so that nothing
// has to be asked of the API server once a pod starts.
func (f *Family) resolve(ctx context.Context, grant device.Grant, config *v1alpha1.VfConfig, j *vfstate.Journal) (err error) {
	if config.NetAttachDef != nil {
		if j.Network, err = f.opts.Networks.Resolve(ctx, grant.Claim.Namespace, *config.NetAttachDef); err != nil {
			return fmt.Errorf("netAttachDef: %w", err)
		}
	}
	if len(config.IPAM) > 0 {
		if j.IPAM, err = f.opts.Networks.ResolveIPAM(ipamName(config.IPAM), config.IPAM); err != nil {
			return fmt.Errorf("ipam: %w", err)
		}
	}
	return nil
}

// ipamName names the network whose addresses an IPAM plugin hands out. Claims
// with the same IPAM object share one, or they would get the same addresses.
func ipamName(ipam json.RawMessage) string {
	sum := sha256.Sum256(ipam)
	return "eks-hybrid-dra-" + hex.EncodeToString(sum[:6])
}

// setUp changes the VF. Everything is compared first, so that repeating it
// changes nothing.
func (f *Family) setUp(ctx context.Context, fn function, config *v1alpha1.VfConfig, j *vfstate.Journal) error {
	host := f.kernel.Host()
	links, err := host.Links()
	if err != nil {
		return fmt.Errorf("list the host's network interfaces: %w", err)
	}
	link, pf := pick(links, fn.address), pickPF(links, fn)
	if link != nil {
		offerAddress(host, link, j.Applied.HardwareAddress)
	}
	if err := apply(host, pf, fn, j.Applied); err != nil {
		return err
	}
	if err := f.at(faultpoint.VFSettingsApplied); err != nil {
		return err
	}
	if config.Mode == v1alpha1.VfModeVFIO {
		return f.bindVFIO(ctx, fn, j)
	}
	if link == nil {
		return nil
	}
	if err := f.setInterface(ctx, fn, config, j, link); err != nil {
		return err
	}
	return f.at(faultpoint.VFInterfaceSet)
}

// bindVFIO hands the VF to vfio-pci. The functions of its IOMMU group must not
// be in use by a driver of the kernel or by another claim.
func (f *Family) bindVFIO(ctx context.Context, fn function, j *vfstate.Journal) error {
	group, err := f.drivers.Group(fn.address)
	if err != nil {
		return fmt.Errorf("mode %s: %w", v1alpha1.VfModeVFIO, err)
	}
	unlock, err := f.journal.LockGroup(ctx, group.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := f.checkGroup(group, fn.address, j.Claim); err != nil {
		return fmt.Errorf("mode %s: %w", v1alpha1.VfModeVFIO, err)
	}
	if err := f.drivers.Bind(fn.address, vfio.Binding{Driver: vfio.Driver, Override: vfio.Driver}); err != nil {
		return err
	}
	return f.at(faultpoint.VFDriverBound)
}

// checkGroup returns an error that names every function that is in the way.
func (f *Family) checkGroup(group vfio.Group, a topology.Address, claim device.Claim) error {
	var errs []error
	for _, other := range group.Foreign() {
		errs = append(errs, fmt.Errorf("VF %s is in IOMMU group %s together with %s, and a group goes to one program as a whole: unbind that function, or move the NIC to a slot below a root port with ACS", a, group.Name, other))
	}
	for _, other := range group.Others {
		j, err := f.journal.Load(other.Address)
		if err != nil {
			var unreadable *vfstate.UnreadableError
			if errors.As(err, &unreadable) {
				continue // its claim's next call deals with it
			}
			return err
		}
		if j != nil && j.Claim.UID != claim.UID && j.BootID == f.opts.BootID {
			errs = append(errs, fmt.Errorf("VF %s is in IOMMU group %s together with %s, which claim %s has, and a group goes to one program as a whole: allocate both to one claim", a, group.Name, other.Address, j.Claim))
		}
	}
	return errors.Join(errs...)
}
