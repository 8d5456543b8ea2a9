package pairs

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Options say which GPUs and NICs become pairs.
type Options struct {
	// Sysfs tells where PCI functions sit.
	Sysfs topology.Sysfs
	// Pairing says how near a NIC must be, and which pairs a person has
	// decided. Its Capacity is not used: a NIC serves as many GPUs as it has
	// VFs.
	Pairing topology.Pairing
}

// NewOptions returns what a configuration says, for the machine that a sysfs
// shows.
func NewOptions(sysfs topology.Sysfs, config v1alpha1.PairingConfig) (*Options, error) {
	o := &Options{Sysfs: sysfs, Pairing: topology.Pairing{Fixed: map[topology.Address]topology.Address{}}}
	least := cmp.Or(config.LeastAlignment, topology.NODE.String())
	relations := []topology.Relation{topology.PIX, topology.PXB, topology.PHB, topology.NODE, topology.SYS}
	n := slices.IndexFunc(relations, func(r topology.Relation) bool { return r.String() == least })
	if n < 0 {
		return nil, fmt.Errorf("pairing.leastAlignment is %q: want one of %v", least, relations)
	}
	o.Pairing.Least = relations[n]
	for i, p := range config.Pairs {
		gpu, err := topology.ParseAddress(p.GPU)
		if err != nil {
			return nil, fmt.Errorf("pairing.pairs[%d].gpu: %w", i, err)
		}
		var nic topology.Address // none: the GPU stays alone
		if p.NIC != "" {
			if nic, err = topology.ParseAddress(p.NIC); err != nil {
				return nil, fmt.Errorf("pairing.pairs[%d].nic: %w", i, err)
			}
		}
		o.Pairing.Fixed[gpu] = nic
	}
	return o, nil
}
