package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
)

// discovery is what one family answered when it was last asked.
type discovery struct {
	family    Family
	inventory device.Inventory
	err       error
}

// owned is a device and the family it belongs to.
type owned struct {
	device.Device
	// family is nil for a composite, whose parts have one each.
	family Family
	// parts are the single devices that a composite is made of, and held tells
	// that a claim has it.
	parts []owned
	held  bool
	// problems are the device's, one for each reason, in the reasons' order.
	problems []problem
}

// inventory is what all families found, in the order of the families.
type inventory struct {
	families []Family
	metrics  *Metrics
	// pairs makes composites; nil for none.
	pairs *pairs.Options
	// tell is told what families have found, before anything of it is published.
	tell func(ctx context.Context, family string, found device.Inventory, err error)
	// held returns what claims have.
	held func() (map[string]pairs.Holder, error)

	// looking lets one look at the hardware run at a time.
	looking sync.Mutex

	mu     sync.RWMutex
	found  []discovery
	joined pairs.Joined
	all    []owned
	byName map[string]owned
	// looked is closed after the next look.
	looked chan struct{}
	// lookingSince is when the look that goes on began; zero if none does.
	lookingSince time.Time
}

func newInventory(families []Family, metrics *Metrics) (*inventory, error) {
	names := map[string]bool{}
	for _, f := range families {
		if names[f.Name()] {
			return nil, fmt.Errorf("two families are called %q", f.Name())
		}
		names[f.Name()] = true
	}
	return &inventory{
		families: families, metrics: metrics, looked: make(chan struct{}),
		held: func() (map[string]pairs.Holder, error) { return nil, nil },
		tell: noReserve{}.Found,
	}, nil
}

// look asks every family what is there now, and tells those whom it concerns.
func (d *Driver) look(ctx context.Context) error {
	err := d.inventory.refresh(ctx)
	d.options.NodeLabels.Found(d.inventory.gpuProducts())
	return err
}

// refresh asks every family what is there now. A family that fails does not
// hide the others. An error means that only a new process can go on.
func (i *inventory) refresh(ctx context.Context) error {
	i.looking.Lock()
	defer i.looking.Unlock()
	i.beginLook()
	defer i.endLook()
	logger := klog.FromContext(ctx)

	names := poolNames{}
	found := make([]discovery, len(i.families))
	for n, f := range i.families {
		inv, err := f.Devices(ctx)
		inv = names.check(inv)
		i.tell(ctx, f.Name(), inv, err)
		found[n] = discovery{family: f, inventory: inv, err: err}
		for _, fault := range inv.Faults {
			logger.Error(fault.Err, "A device cannot be used and is not published", "family", f.Name(), "device", fault.Subject, "reason", fault.Reason)
		}
		if err != nil {
			logger.Error(err, "No devices of this family are published", "family", f.Name())
		}
	}
	joined, all := i.join(ctx, found)
	i.metrics.discovered(found, all)
	i.learn(ctx, found, joined, all)
	for _, f := range found {
		if errors.Is(f.err, device.ErrRestart) {
			return fmt.Errorf("family %s: %w", f.family.Name(), f.err)
		}
	}
	return nil
}

func (i *inventory) beginLook() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookingSince = time.Now()
}

func (i *inventory) endLook() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookingSince = time.Time{}
	close(i.looked)
	i.looked = make(chan struct{})
}

// learn replaces what was known by what was found.
func (i *inventory) learn(ctx context.Context, found []discovery, joined pairs.Joined, all []owned) {
	byName := make(map[string]owned, len(all))
	for _, d := range all {
		byName[d.Name] = d
	}
	i.mu.Lock()
	before, pairsBefore := i.byName, i.joined.Pairs
	i.found, i.joined, i.all, i.byName = found, joined, all, byName
	i.mu.Unlock()
	i.tellOfPairs(ctx, pairsBefore, joined.Pairs)
	i.tellOfChanges(ctx, before, byName)
}

// devices returns what is on the node, in order.
func (i *inventory) devices() []owned {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.all
}

// nextLook returns a channel that is closed after the next look, and when the
// look that goes on now began, which is zero if none does.
func (i *inventory) nextLook() (<-chan struct{}, time.Time) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.looked, i.lookingSince
}

// device returns the device of that name.
func (i *inventory) device(name string) (owned, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	d, ok := i.byName[name]
	return d, ok
}

// family returns the family of that name.
func (i *inventory) family(name string) (Family, bool) {
	for _, f := range i.families {
		if f.Name() == name {
			return f, true
		}
	}
	return nil, false
}

// familyError returns why a family could not tell at the last look what is
// there.
func (i *inventory) familyError(name string) error {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for _, f := range i.found {
		if f.family.Name() == name {
			return f.err
		}
	}
	return nil
}

// gpuProducts returns what each of the node's GPUs is called, whoever is given
// them, and whether every family could tell what is there.
func (i *inventory) gpuProducts() (products []string, whole bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	whole = true
	for _, f := range i.found {
		whole = whole && f.err == nil
		for _, d := range f.inventory.Devices {
			if d.Kind == device.KindGPU {
				products = append(products, ptr.Deref(d.Attributes[device.AttributeProductName].StringValue, ""))
			}
		}
	}
	return products, whole
}
