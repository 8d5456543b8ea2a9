// The simulated machine needs C, which tests in the guest are built without.

//go:build !guest

package sriov

import (
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

func BenchmarkDevices(b *testing.B) {
	root := b.TempDir()
	machine := simulated.New(simulated.DGXH200, "node")
	if err := machine.WriteSysfs(root); err != nil {
		b.Fatal(err)
	}
	host := &fixture.Namespace{}
	for _, port := range machine.NICs() {
		host.Add(kernel.Link{Name: port.Netdev, Device: port.Address, Type: "infiniband", Up: true, Carrier: true})
		for _, vf := range port.VFs {
			host.Add(kernel.Link{Name: vf.Netdev, Device: vf.Address, Type: "infiniband"})
		}
	}
	f := New(Options{SysfsRoot: root, DataDir: b.TempDir(), BootID: "boot-1", Kernel: host})
	for b.Loop() {
		found, err := f.Devices(b.Context())
		if err != nil || len(found.Devices) != 64 || len(found.Faults) > 0 {
			b.Fatalf("got %d devices, faults %v, error %v", len(found.Devices), found.Faults, err)
		}
	}
}
