package gpu

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Family is the GPUs of this machine. Its methods may be called concurrently.
type Family struct {
	opts  Options
	sysfs topology.Sysfs

	// looking is held by whoever looks at the machine. It is a channel, so
	// that waiting for it ends with the context: a broken GPU can block NVML
	// for minutes.
	looking chan struct{}
	// library and former belong to the holder of looking. former is the
	// driver that this process used last.
	library library
	former  installation

	// wake tells Watch that a look outside of it brought something new.
	wake chan struct{}

	mu     sync.Mutex
	latest snapshot
	// answered is the generation that Devices gave last.
	answered uint64
}

// snapshot is the latest look.
type snapshot struct {
	*findings
	taken time.Time
	// generation grows when a look brings another answer of Devices.
	generation uint64
}

// New returns the family. It does not look at the machine yet.
func New(opts Options) *Family {
	opts = opts.withDefaults()
	return &Family{
		opts:    opts,
		sysfs:   topology.At(opts.SysfsRoot),
		looking: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
	}
}

// Name returns "gpu".
func (f *Family) Name() string { return string(device.KindGPU) }

// NewConfig returns the default [v1alpha1.GpuConfig].
func (f *Family) NewConfig() runtime.Object { return v1alpha1.DefaultGpuConfig() }

// Devices looks at the machine and returns the GPUs in the order of their
// index, with those that fail as faults. A [DriverError] means that there are
// GPUs but their driver cannot be used; a machine without GPUs is an empty
// inventory.
func (f *Family) Devices(ctx context.Context) (device.Inventory, error) {
	s, err := f.refresh(ctx)
	if err != nil {
		return device.Inventory{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered = s.generation
	return s.inventory, s.err
}

// refresh looks at the machine. The error is that of the context; what is
// wrong with the machine is in the snapshot.
func (f *Family) refresh(ctx context.Context) (snapshot, error) {
	select {
	case f.looking <- struct{}{}:
		defer func() { <-f.looking }()
	case <-ctx.Done():
		return snapshot{}, fmt.Errorf("wait for another look at the GPUs: %w", context.Cause(ctx))
	}
	found := f.look(ctx)

	f.mu.Lock()
	defer f.mu.Unlock()
	former := f.latest
	f.latest = snapshot{findings: found, taken: time.Now(), generation: former.generation}
	if former.findings == nil || former.note != found.note || !device.SameAnswer(former.inventory, former.err, found.inventory, found.err) {
		f.latest.generation++
		if found.note != "" {
			klog.FromContext(ctx).Info("No GPU is published", "reason", found.note)
		}
	}
	return f.latest, nil
}

func (f *Family) current() snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// Prepare returns what a container needs to use the granted GPU. A whole GPU
// needs nothing done to it, so a repeated call changes nothing, and a grant
// with admin access is prepared like any other.
//
// Errors say what is wrong with the GPU; the caller knows whose it is.
func (f *Family) Prepare(ctx context.Context, grant device.Grant) (device.Edits, error) {
	if _, ok := grant.Config.(*v1alpha1.GpuConfig); !ok {
		return device.Edits{}, fmt.Errorf("a GPU cannot be configured by a %T: use kind %s", grant.Config, v1alpha1.GpuConfigKind)
	}
	s := f.current()
	if s.findings == nil || time.Since(s.taken) > 2*f.opts.Resync || !f.holds(s, grant) {
		var err error
		if s, err = f.refresh(ctx); err != nil {
			return device.Edits{}, err
		}
		f.wakeWatch()
	}
	if s.err != nil {
		return device.Edits{}, s.err
	}
	address, err := s.find(grant)
	if err != nil {
		return device.Edits{}, err
	}
	if fault, ok := s.faulty[address]; ok {
		return device.Edits{}, fmt.Errorf("GPU %s cannot be used (%s): %w: delete the pod, so that another GPU is allocated", address, fault.Reason, fault.Err)
	}
	usable, ok := s.usable[address]
	if !ok || f.gone(address, usable) {
		return device.Edits{}, fmt.Errorf("GPU %s is no longer in the machine%s: delete the pod, so that another GPU is allocated, and look for NVRM lines in the kernel log", address, s.because())
	}
	return device.Edits{Common: cloneEdits(s.common), Device: cloneEdits(usable.edits)}, nil
}

// holds tells whether the snapshot can answer for a grant as the machine is
// now, by what is seen without NVML: the GPU is on the PCI bus, the driver's
// files and device nodes are there.
func (f *Family) holds(s snapshot, grant device.Grant) bool {
	address, err := s.find(grant)
	if err != nil {
		return false
	}
	if usable, ok := s.usable[address]; !ok || f.gone(address, usable) {
		return false
	}
	for _, file := range s.files {
		if !file.unchanged() {
			return false
		}
	}
	return true
}

func (f *Family) gone(address topology.Address, g usableGPU) bool {
	return g.onBus && !f.sysfs.Exists(address)
}

// find returns which GPU a grant is about. The address decides, because names
// follow the driver's numbering, which changes when a GPU fails to come up.
func (s *findings) find(grant device.Grant) (topology.Address, error) {
	if name, ok := device.PCIAddress(grant.Occupies); ok {
		address, err := topology.ParseAddress(name)
		if err != nil {
			return topology.Address{}, fmt.Errorf("what it occupies is no GPU: %w", err)
		}
		return address, nil
	}
	for address, usable := range s.usable {
		if usable.name == grant.Device {
			return address, nil
		}
	}
	return topology.Address{}, errors.New("no GPU of that name is in the machine" + s.because())
}

func (s *findings) because() string {
	if s.note == "" {
		return ""
	}
	return " (" + s.note + ")"
}

// Release has nothing to undo for whole GPUs.
func (f *Family) Release(context.Context, device.Grant) error { return nil }
