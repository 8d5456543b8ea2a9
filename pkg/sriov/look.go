package sriov

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/provision"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/selection"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// looker is what the family knows of the machine from looking at it.
type looker struct {
	selection   *selection.Selection
	badSelector error
	provisioner *provision.Provisioner

	// looking is held by whoever looks at the machine. It is a channel, so
	// that waiting for it ends with the context.
	looking chan struct{}
	// remembered is what VFs were when nobody used them, and tidied says that
	// the journals of VFs that are gone were removed. Both belong to the
	// holder of looking.
	remembered map[topology.Address]seen
	tidied     bool

	// wake tells Watch that a look outside of it may bring something new.
	wake chan struct{}

	mu     sync.Mutex
	latest answer
	// answered is the generation that Devices gave last.
	answered uint64
}

// answer is the latest one to the question for devices.
type answer struct {
	inventory device.Inventory
	err       error
	// generation grows with each answer that differs from the one before.
	generation uint64
}

func (f *Family) newLooker() *looker {
	l := &looker{
		looking:    make(chan struct{}, 1),
		remembered: make(map[topology.Address]seen),
		wake:       make(chan struct{}, 1),
	}
	l.selection, l.badSelector = selection.New(f.opts.Config)
	l.provisioner = provision.New(provision.Options{
		SysfsRoot: f.opts.SysfsRoot,
		Write:     f.opts.WriteSysfs,
		Host:      f.kernel.Host(),
		Hold:      f.hold,
		Done:      f.wakeWatch,
		Notes:     f.opts.notes(),
	})
	return l
}

// Devices makes the VFs that the configuration asks for, as far as they are not
// there yet, and returns those that it selects, in the order of their places.
// NICs that cannot be used are faults. A machine without NICs is an empty
// inventory.
func (f *Family) Devices(ctx context.Context) (device.Inventory, error) {
	now, err := f.refresh(ctx)
	if err != nil {
		return device.Inventory{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered = now.generation
	return now.inventory, now.err
}

// refresh looks at the machine. The error is that of the context; what is
// wrong with the machine is in the answer.
func (f *Family) refresh(ctx context.Context) (answer, error) {
	select {
	case f.looking <- struct{}{}:
		defer func() { <-f.looking }()
	case <-ctx.Done():
		return answer{}, fmt.Errorf("wait for another look at the VFs: %w", context.Cause(ctx))
	}
	inventory, err := f.look(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return answer{}, fmt.Errorf("look at the VFs: %w", cause)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latest.generation == 0 || !device.SameAnswer(f.latest.inventory, f.latest.err, inventory, err) {
		f.latest = answer{inventory: inventory, err: err, generation: f.latest.generation + 1}
	}
	return f.latest, nil
}

// look makes what is to be made, and reads what there is then.
func (f *Family) look(ctx context.Context) (device.Inventory, error) {
	if f.badSelector != nil {
		return device.Inventory{}, fmt.Errorf("read the plugin's configuration: %w", f.badSelector)
	}
	if !f.tidied {
		f.tidy(ctx)
		f.tidied = true
	}
	// A claim that begins or ends during the look is seen by one of the two
	// lists, so that what it does to its VF is not taken for the VF's nature.
	used, err := f.inUse()
	if err != nil {
		return device.Inventory{}, err
	}
	machine, faults, err := f.scan(ctx)
	if err != nil {
		return device.Inventory{}, err
	}
	changed, failed := f.provisioner.Run(ctx, machine.PFs, f.selection.Wants)
	if changed {
		if machine, faults, err = f.scan(ctx); err != nil {
			return device.Inventory{}, err
		}
	}
	usedNow, err := f.inUse()
	if err != nil {
		return device.Inventory{}, err
	}
	maps.Copy(used, usedNow)
	inventory := device.Inventory{Faults: append(faults, f.pfFaults(machine, failed)...)}
	inventory.Devices = f.devices(ctx, machine, used)
	return inventory, nil
}

func (f *Family) scan(ctx context.Context) (nic.Machine, []device.Fault, error) {
	return nic.Scan(ctx, nic.Options{SysfsRoot: f.opts.SysfsRoot, Host: f.kernel.Host(), NodeAddresses: f.opts.NodeAddresses})
}

// inUse returns the VFs that claims have, with their journals as far as these
// can be read. A journal from before a reboot does not count: the reboot has
// reset its VF.
func (f *Family) inUse() (map[topology.Address]*vfstate.Journal, error) {
	addresses, err := f.journal.List()
	if err != nil {
		return nil, err
	}
	used := make(map[topology.Address]*vfstate.Journal, len(addresses))
	for _, address := range addresses {
		journal, err := f.journal.Load(address)
		if err != nil {
			used[address] = nil
		} else if journal != nil && journal.BootID == f.opts.BootID {
			used[address] = journal
		}
	}
	return used, nil
}

// hold keeps a VF from being prepared for a claim until it is released. It does
// not wait for a VF that is being worked on.
func (f *Family) hold(ctx context.Context, address topology.Address) (release func(), free bool, err error) {
	now, cancel := context.WithCancelCause(ctx)
	cancel(errBusy)
	unlock, err := f.journal.Lock(now, address)
	if errors.Is(err, errBusy) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	journal, err := f.journal.Load(address)
	var unreadable *vfstate.UnreadableError
	if errors.As(err, &unreadable) || err == nil && journal != nil && journal.BootID == f.opts.BootID {
		unlock()
		return nil, false, nil
	}
	if err != nil {
		unlock()
		return nil, false, err
	}
	return unlock, true, nil
}

var errBusy = errors.New("it is being worked on")

func (f *Family) wakeWatch() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// logChoice says why VFs that are there are not published, to those who look.
func logChoice(ctx context.Context, pf nic.PF, left int) {
	if left == 0 {
		return
	}
	logger := klog.FromContext(ctx).V(4)
	if pf.HostUse != "" {
		logger.Info("VFs are left to the host", "pf", pf.Name(), "pciAddress", pf.Address, "vfs", left, "reason", pf.HostUse)
		return
	}
	logger.Info("VFs are not published, since no selector chooses them", "pf", pf.Name(), "pciAddress", pf.Address, "vfs", left)
}
