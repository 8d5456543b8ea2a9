// The simulated machine needs C, which tests in the guest are built without.

//go:build !guest

package nic

import (
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// The simulated machine shows what a DGX shows.
func TestScanSimulated(t *testing.T) {
	root := t.TempDir()
	if err := simulated.New(simulated.DGXH200, "node").WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	machine, faults := scan(t, Options{SysfsRoot: root, Host: &fixture.Namespace{}})
	vfs := 0
	for _, pf := range machine.PFs {
		vfs += len(pf.VFs)
		for _, vf := range pf.VFs {
			if address, ok := pf.VFAddress(vf.Index); !ok || address != vf.Address {
				t.Errorf("VF %d of %s is at %s, want %s", vf.Index, pf.Address, vf.Address, address)
			}
			if vf.RDMA == nil || vf.RDMA.State != "ACTIVE" || kernel.IsZero(vf.RDMA.NodeGUID) {
				t.Errorf("VF %s: got RDMA %+v", vf.Address, vf.RDMA)
			}
		}
	}
	if len(faults) != 0 || len(machine.PFs) != 12 || vfs != 64 {
		t.Errorf("got %d PFs, %d VFs, faults %v, want 12 and 64", len(machine.PFs), vfs, faults)
	}
}
