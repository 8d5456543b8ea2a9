package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
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
	family Family
}

// inventory is what all families found, in the order of the families.
type inventory struct {
	families []Family
	metrics  *Metrics

	// looking lets one look at the hardware run at a time.
	looking sync.Mutex

	mu     sync.RWMutex
	found  []discovery
	byName map[string]owned
}

func newInventory(families []Family, metrics *Metrics) (*inventory, error) {
	names := map[string]bool{}
	for _, f := range families {
		if names[f.Name()] {
			return nil, fmt.Errorf("two families are called %q", f.Name())
		}
		names[f.Name()] = true
	}
	return &inventory{families: families, metrics: metrics}, nil
}

// refresh asks every family what is there now. A family that fails does not
// hide the others. An error means that only a new process can go on.
func (i *inventory) refresh(ctx context.Context) error {
	i.looking.Lock()
	defer i.looking.Unlock()
	logger := klog.FromContext(ctx)

	found := make([]discovery, len(i.families))
	byName := map[string]owned{}
	for n, f := range i.families {
		inv, err := f.Devices(ctx)
		found[n] = discovery{family: f, inventory: inv, err: err}
		for _, fault := range inv.Faults {
			logger.Error(fault.Err, "A device cannot be used and is not published", "family", f.Name(), "device", fault.Subject, "reason", fault.Reason)
		}
		if err != nil {
			logger.Error(err, "No devices of this family are published", "family", f.Name())
		}
		for _, d := range inv.Devices {
			byName[d.Name] = owned{Device: d, family: f}
		}
	}
	i.metrics.discovered(found)

	i.mu.Lock()
	defer i.mu.Unlock()
	i.found, i.byName = found, byName
	for _, f := range found {
		if errors.Is(f.err, device.ErrRestart) {
			return fmt.Errorf("family %s: %w", f.family.Name(), f.err)
		}
	}
	return nil
}

// devices returns what is to be published, in order.
func (i *inventory) devices() []device.Device {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var all []device.Device
	for _, f := range i.found {
		all = append(all, f.inventory.Devices...)
	}
	return all
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
