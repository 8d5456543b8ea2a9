package sriov

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/provision"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// NotesFolder is where is noted, below the plugin's folder, which VFs we made. It
// is there only if we made any.
const NotesFolder = "made-vfs"

func (o Options) notes() provision.Notes {
	return provision.Notes{Dir: filepath.Join(o.DataDir, NotesFolder), BootID: o.BootID}
}

// TakeDown takes the VFs away that the plugin has made, on a node on which no
// claim has a VF any more. VFs that were there before, those of a PF that has
// got another number since, and those that something else uses stay. Repeating
// it is fine.
func (f *Family) TakeDown(ctx context.Context) error {
	notes := f.opts.notes()
	made, err := notes.Made()
	if err != nil || len(made) == 0 {
		return err
	}
	used, err := f.inUse()
	if err != nil {
		return err
	}
	machine, _, err := f.scan(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for address, number := range made {
		at := slices.IndexFunc(machine.PFs, func(pf nic.PF) bool { return pf.Address == address })
		if at < 0 || machine.PFs[at].NumVFs != number {
			errs = append(errs, notes.Forget(address)) // not as we left it, so not ours any more
			continue
		}
		pf := machine.PFs[at]
		if why := inOtherUse(pf, func(vf topology.Address) bool { _, ok := used[vf]; return ok }); why != "" {
			errs = append(errs, fmt.Errorf("the %d VFs of %s (%s), which the driver made, are not taken away: %s", number, pf.Name(), address, why))
			continue
		}
		klog.FromContext(ctx).Info("Taking away the VFs that the driver made", "pf", pf.Name(), "pciAddress", address, "number", number)
		if err := f.opts.WriteSysfs(filepath.Join(f.opts.SysfsRoot, "bus", "pci", "devices", address.String(), "sriov_numvfs"), "0"); err != nil {
			errs = append(errs, fmt.Errorf("take away the VFs of %s (%s): %w: see the kernel's log", pf.Name(), address, err))
			continue
		}
		errs = append(errs, notes.Forget(address))
	}
	return errors.Join(errs...)
}

// inOtherUse says who uses a VF of the PF, or nothing.
func inOtherUse(pf nic.PF, claimed func(topology.Address) bool) string {
	for _, vf := range pf.VFs {
		switch {
		case claimed(vf.Address):
			return fmt.Sprintf("a claim has VF %d (%s): delete its pod", vf.Index, vf.Address)
		case vf.HostUse != "":
			return fmt.Sprintf("the host uses VF %d (%s): %s", vf.Index, vf.Address, vf.HostUse)
		case vf.Driver == vfio.Driver:
			return fmt.Sprintf("VF %d (%s) is bound to %s, a virtual machine may use it: unbind it", vf.Index, vf.Address, vfio.Driver)
		case vf.Driver != "" && vf.Netdev == nil && vf.RDMA == nil:
			return fmt.Sprintf("the interface of VF %d (%s) is not on the host: something else has moved it into a network namespace", vf.Index, vf.Address)
		}
	}
	return ""
}
