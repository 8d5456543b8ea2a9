// The simulated machine needs C, which tests in the guest are built without.

//go:build !guest

package sriov

import (
	"fmt"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nickernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/netnstest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// The simulated machine is a healthy one, whose interfaces are in a real
// network namespace.
func TestSimulatedMachine(t *testing.T) {
	for _, ethernet := range []bool{false, true} {
		t.Run(fmt.Sprintf("ethernet %v", ethernet), func(t *testing.T) {
			netns := netnstest.Path(netnstest.New(t))
			host, err := kernel.New(netns)
			if err != nil {
				t.Fatal(err)
			}
			machine := simulated.New(simulated.DGXH200, "node")
			machine.Ethernet = ethernet
			root := t.TempDir()
			if err := machine.WriteSysfs(root); err != nil {
				t.Fatal(err)
			}
			nics, err := nickernel.New(t.Context(), nickernel.Options{Real: host, HostNetns: netns, NICs: machine.NICs(), Dir: t.TempDir(), BootID: "boot-1"})
			if err != nil {
				t.Fatal(err)
			}
			found := inventory(t, New(Options{SysfsRoot: root, DataDir: t.TempDir(), BootID: "boot-1", Kernel: nics}))
			if len(found.Devices) != 64 || len(found.Faults) > 0 {
				t.Errorf("got %d devices and faults %v, want 64 and none", len(found.Devices), found.Faults)
			}
			for _, d := range found.Devices {
				if len(d.Problems) > 0 {
					t.Errorf("%s has problems %+v", d.Name, d.Problems)
				}
			}
			t.Logf("attributes: %v", plain(found.Devices[0]))
		})
	}
}
