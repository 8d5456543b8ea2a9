package main

import (
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// pairs says which GPUs are given together with a VF.
func (o *options) pairs(config *v1alpha1.NodeConfig) (*pairs.Options, error) {
	options, err := pairs.NewOptions(topology.At(o.servedSysfs()), config.Pairing)
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", o.config, err)
	}
	return options, nil
}
