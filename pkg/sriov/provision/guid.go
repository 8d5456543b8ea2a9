package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// follow is the policy by which a VF's port is up when its PF's is.
const follow = "Follow"

// local is the bit that marks a GUID (EUI-64) as given on the spot, so that it
// never is one that a manufacturer gave.
const local = 0x02

// GUID returns the GUID of a VF: that of its PF with the local bit, and the
// number of the VF, counted from one, in the fourth and fifth byte, which are
// the same on all NICs of a manufacturer. It is the same after each boot, and
// differs between PFs wherever theirs differ in the other bytes.
func GUID(pf net.HardwareAddr, vf int) (net.HardwareAddr, error) {
	if len(pf) != 8 || kernel.IsZero(pf) {
		return nil, fmt.Errorf("the PF's GUID is %q: want eight bytes that are not all zero", pf)
	}
	if vf < 0 || vf >= 0xffff {
		return nil, fmt.Errorf("VF number %d is not below %d", vf, 0xffff)
	}
	guid := append(net.HardwareAddr{}, pf...)
	guid[0] |= local
	guid[3] ^= byte((vf + 1) >> 8)
	guid[4] ^= byte(vf + 1)
	return guid, nil
}

// nameless are the InfiniBand VFs that have no GUID, so that nothing can reach
// them.
func (t task) nameless() []nic.VF {
	if t.wanted.NumVFs == nil || t.wanted.ExternallyManaged || t.pf.LinkType != nic.InfiniBand || t.pf.RDMA == nil {
		return nil
	}
	var found []nic.VF
	for _, vf := range t.pf.VFs {
		if vf.RDMA != nil && vf.RDMA.State != "" && kernel.IsZero(vf.RDMA.NodeGUID) {
			found = append(found, vf)
		}
	}
	return found
}

// nameAll gives GUIDs to the VFs that have none. One VF that fails does not
// keep the others from theirs.
func (t task) nameAll(ctx context.Context) error {
	var errs []error
	for _, vf := range t.nameless() {
		err := t.holding(ctx, vf.Address, func() error { return t.name(ctx, vf) })
		if err != nil {
			errs = append(errs, fmt.Errorf("give VF %d (%s) a GUID: %w", vf.Index, vf.Address, err))
		}
	}
	return errors.Join(errs...)
}

// name gives a VF its GUID. The VF's driver reads it only when it is bound.
func (t task) name(ctx context.Context, vf nic.VF) error {
	guid, err := GUID(t.pf.RDMA.NodeGUID, vf.Index)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Giving a VF its GUID", "pf", t.pf.Name(), "vf", vf.Index, "pciAddress", vf.Address, "guid", guid)
	if err := t.setGUID(vf.Index, guid); err != nil {
		return err
	}
	if vf.Driver == "" || vf.Driver == vfio.Driver {
		return nil
	}
	if err := t.drivers.Rebind(vf.Address); err != nil {
		return err
	}
	return t.await(ctx, "the GUID", func() (string, error) {
		if t.hasGUID(vf.Address) {
			return "", nil
		}
		return fmt.Sprintf("GUID %s on the RDMA device", guid), nil
	})
}

// setGUID tells the NIC, by the files of NVIDIA's own driver where it has them,
// and else over netlink.
func (t task) setGUID(vf int, guid net.HardwareAddr) error {
	folder := t.path(t.pf.Address, "sriov", strconv.Itoa(vf))
	if _, err := os.Stat(filepath.Join(folder, "node")); err == nil {
		for _, setting := range []struct{ file, value string }{
			{"node", guid.String()}, {"port", guid.String()}, {"policy", follow},
		} {
			if err := t.opts.Write(filepath.Join(folder, setting.file), setting.value); err != nil {
				return fmt.Errorf("set %s: %w", setting.value, err)
			}
		}
		return nil
	}
	if t.pf.Netdev == nil {
		return errors.New("the PF has no interface over which that could be done: load the module ib_ipoib")
	}
	return t.opts.Host.SetVF(t.pf.Netdev.Index, vf, kernel.VFSettings{NodeGUID: guid, PortGUID: guid, LinkState: ptr.To("auto")})
}

// hasGUID tells whether the VF's RDMA device has a GUID.
func (t task) hasGUID(vf topology.Address) bool {
	files, err := filepath.Glob(t.path(vf, "infiniband", "*", "node_guid"))
	if err != nil || len(files) == 0 {
		return false
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		return false
	}
	for _, c := range data {
		if c != '0' && c != ':' && c != '\n' {
			return len(data) > 0
		}
	}
	return false
}
