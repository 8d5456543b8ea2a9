package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

// Outside writes what a node on another machine needs to join the cluster, and
// prints, as JSON, what has to be done there. The node joins once its kubelet
// runs.
func (c *Cluster) Outside(o config.Outside, out io.Writer) error {
	have, controlPlane, err := c.controlPlane()
	if err != nil {
		return err
	}
	if o.Name == "" || o.Name == have.NodeName {
		return fmt.Errorf("--node %q: name a node that the cluster has not yet", o.Name)
	}
	if !o.Address.Is4() {
		return fmt.Errorf("--address %s: want an IPv4 address", o.Address)
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if o.SeenAs == "" {
		o.SeenAs = o.Dir
	}
	node, err := config.WriteOutside(have, c.State, o)
	if err != nil {
		return err
	}
	node.Network = fmt.Sprintf("/proc/%d/ns/net", controlPlane.PID)
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(node); err != nil {
		return fmt.Errorf("print what the node needs: %w", err)
	}
	return nil
}

// DefaultOutsidePods is the network of pods on an outside node.
func DefaultOutsidePods() netip.Prefix { return netip.MustParsePrefix("10.88.0.0/24") }
