package sriov

import (
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// journalFolder is where the journals are below the plugin's folder.
const journalFolder = "vfs"

// Family is the VFs of this machine. Its methods may be called concurrently.
type Family struct {
	opts    Options
	kernel  kernel.Kernel
	sysfs   topology.Sysfs
	drivers vfio.Bus
	journal *vfstate.Store
	// at marks a step at which tests make the plugin fail.
	at func(faultpoint.Step) error

	*looker
}

// New returns the family. It does not look at the machine yet.
func New(opts Options) *Family {
	opts = opts.withDefaults()
	f := &Family{
		opts:    opts,
		kernel:  opts.Kernel,
		sysfs:   topology.At(opts.SysfsRoot),
		drivers: vfio.New(opts.SysfsRoot, opts.WriteSysfs),
		journal: vfstate.New(filepath.Join(opts.DataDir, journalFolder)),
		at:      faultpoint.At,
	}
	f.looker = f.newLooker()
	return f
}

// Name returns "vf".
func (f *Family) Name() string { return string(device.KindVF) }

// NewConfig returns the default [v1alpha1.VfConfig].
func (f *Family) NewConfig() runtime.Object { return v1alpha1.DefaultVfConfig() }
