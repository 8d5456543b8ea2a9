package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/nodelabels"
)

// nodeLabels returns who labels the node, nil if the configuration has nothing
// about that.
func (o *options) nodeLabels(n node, config *v1alpha1.NodeConfig, registry prometheus.Registerer) (*nodelabels.Keeper, error) {
	if config.NodeLabels == nil {
		return nil, nil
	}
	return nodelabels.New(nodelabels.Options{
		Client: n.client, Node: o.nodeName, Manager: o.driverName + "-node-labels", Config: *config.NodeLabels,
	}, registry)
}

// removeNodeLabels takes away the labels that the plugin has given its node.
func (o *options) removeNodeLabels(ctx context.Context) error {
	config, err := o.nodeConfig()
	if err != nil {
		return err
	}
	n, err := o.node()
	if err != nil {
		return err
	}
	labels, err := o.nodeLabels(n, config, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return labels.Remove(ctx)
}
