package simulated

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// NewAt makes a machine of which only the GPUs are simulated: each is said to
// be where this machine has another PCI function, so that all else, and what
// is beside what, is this machine's own. It numbers them by address, as NVML
// does.
//
// The machine has no NICs and no NVLink, and [Machine.WriteSysfs] refuses. The
// error names the address that cannot be the place of a GPU.
func NewAt(name Model, seed string, sysfs topology.Sysfs, addresses []topology.Address) (*Machine, error) {
	if err := noRealGPU(sysfs); err != nil {
		return nil, err
	}
	if most := len(gpuSites()); len(addresses) == 0 || len(addresses) > most {
		return nil, fmt.Errorf("%d addresses: want 1 to %d, for a %s has no more GPUs", len(addresses), most, name)
	}
	addresses = slices.SortedFunc(slices.Values(addresses), topology.Address.Compare)
	var sites []gpuSite
	for i, address := range addresses {
		if i > 0 && address == addresses[i-1] {
			return nil, fmt.Errorf("address %s is there twice: name it once", address)
		}
		site, err := siteAt(sysfs, address)
		if err != nil {
			return nil, err
		}
		sites = append(sites, site)
	}
	m := &Machine{model: newModel(name), standIns: true}
	m.addGPUs(seed, sites)
	return m, nil
}

// siteAt is the place of a function that nothing uses.
func siteAt(sysfs topology.Sysfs, address topology.Address) (gpuSite, error) {
	if !sysfs.Exists(address) {
		return gpuSite{}, fmt.Errorf("this machine has no PCI function %s: name one that lspci -D lists", address)
	}
	node, err := sysfs.Node(address)
	if err != nil {
		return gpuSite{}, err
	}
	if node.Driver != "" {
		return gpuSite{}, fmt.Errorf("PCI function %s is in use by the kernel driver %s: name one that has no driver", address, node.Driver)
	}
	site := gpuSite{bdf: address.String(), numa: noNUMA, parent: node.Root}
	for _, bridge := range node.Bridges {
		site.parent = path.Join(site.parent, bridge.String())
	}
	if node.NUMA != nil {
		site.numa = *node.NUMA
	}
	return site, nil
}

// noRealGPU refuses a machine whose own GPUs would seem to be out of order,
// since the simulated driver does not know them.
func noRealGPU(sysfs topology.Sysfs) error {
	const nvidia, display = 0x10de, 0x03
	all, err := sysfs.Addresses()
	if err != nil {
		return fmt.Errorf("look for real GPUs: %w", err)
	}
	for _, address := range all {
		if vendor, class, err := sysfs.ID(address); err == nil && vendor == nvidia && class>>16 == display {
			return fmt.Errorf("this machine has a real NVIDIA GPU at %s: serve that, or simulate a whole machine", address)
		}
	}
	return nil
}

// errStandIns refuses to write what this machine has itself.
var errStandIns = errors.New("only its GPUs are simulated: the rest is this machine's own sysfs")
