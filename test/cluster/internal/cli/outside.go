package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cluster"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

func (o *options) outsideNode() *cobra.Command {
	var node config.Outside
	var address, pods string
	cmd := &cobra.Command{
		Use:   "outside-node",
		Short: "Write what a node on another machine needs to join, and print what to do there",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, _ []string) (err error) {
			if node.Address, err = netip.ParseAddr(address); err != nil {
				return fmt.Errorf("--address: %w", err)
			}
			if node.Pods, err = netip.ParsePrefix(pods); err != nil {
				return fmt.Errorf("--pods: %w", err)
			}
			return c.Outside(node, os.Stdout)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&node.Name, "node", "", "name of the node")
	flags.StringVar(&address, "address", "", "the node's address, at which the control plane reaches its kubelet")
	flags.StringVar(&pods, "pods", cluster.DefaultOutsidePods().String(), "network of the node's pods; they hide behind the node's address")
	flags.StringVar(&node.Dir, "out", "", "folder to write")
	flags.StringVar(&node.SeenAs, "seen-as", "", "path of that folder on the node (default: the same)")
	for _, name := range []string{"node", "address", "out"} {
		// The flag is defined above.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}
