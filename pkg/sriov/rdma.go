package sriov

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// rdmaFolder is where the device nodes of RDMA are below /dev, and
// connectionManager the one that every RDMA program needs.
const (
	rdmaFolder        = "infiniband"
	connectionManager = "rdma_cm"
)

// rdmaDevice is the RDMA device of a VF.
type rdmaDevice struct {
	// name is empty where the device is in another network namespace.
	name string
	// nodes are its device nodes below /dev/infiniband, such as "uverbs0".
	nodes []string
}

// exists tells whether the VF has an RDMA device at all.
func (r rdmaDevice) exists() bool { return r.name != "" || len(r.nodes) > 0 }

// rdma finds the RDMA device of a function whose interface, if it is given,
// stays on the host.
//
// The device is below the PCI function, or, for those made in software such as
// rdma_rxe, names the interface that it stands on; these end when the interface
// moves. In exclusive mode only the network namespace that has the device can
// see its name; the nodes can be seen always.
func (f *Family) rdma(a topology.Address, link *kernel.Link) rdmaDevice {
	found := rdmaDevice{
		name:  first(f.names(f.devicePath(a, "infiniband"), "")),
		nodes: append(f.names(f.devicePath(a, "infiniband_verbs"), "uverbs"), f.names(f.devicePath(a, "infiniband_mad"), "umad")...),
	}
	if found.name == "" && link != nil {
		found.name = f.standingOn(link.Name)
	}
	if found.name != "" && len(found.nodes) == 0 {
		found.nodes = append(f.nodesOf("infiniband_verbs", "uverbs", found.name), f.nodesOf("infiniband_mad", "umad", found.name)...)
	}
	return found
}

// standingOn returns the RDMA device that is made in software on an interface.
func (f *Family) standingOn(netdev string) string {
	class := filepath.Join(f.opts.SysfsRoot, "class", "infiniband")
	for _, name := range f.names(class, "") {
		if parent, err := os.ReadFile(filepath.Join(class, name, "parent")); err == nil && strings.TrimSpace(string(parent)) == netdev {
			return name
		}
	}
	return ""
}

// nodesOf returns the nodes of a class that belong to an RDMA device.
func (f *Family) nodesOf(class, prefix, rdma string) []string {
	var nodes []string
	folder := filepath.Join(f.opts.SysfsRoot, "class", class)
	for _, node := range f.names(folder, prefix) {
		if owner, err := os.ReadFile(filepath.Join(folder, node, "ibdev")); err == nil && strings.TrimSpace(string(owner)) == rdma {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// names returns the sorted names in a folder that begin with a prefix. A folder
// that is not there has none.
func (f *Family) names(folder, prefix string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// findRDMA returns what the RDMA device of a place is called in a namespace, or
// nothing if it is not there.
func findRDMA(ns kernel.Namespace, place *vfstate.Place) (string, error) {
	links, err := ns.RDMALinks()
	if err != nil {
		return "", fmt.Errorf("list the RDMA devices: %w", err)
	}
	if place.RDMAIndex != nil {
		for _, link := range links {
			if link.Index == *place.RDMAIndex {
				return link.Name, nil
			}
		}
	}
	for _, link := range links {
		if link.Name == place.RDMA {
			return link.Name, nil
		}
	}
	return "", nil
}

// hasRDMA tells whether a namespace has the RDMA device of a place.
func hasRDMA(ns kernel.Namespace, place *vfstate.Place) (bool, error) {
	name, err := findRDMA(ns, place)
	return name != "", err
}

// indexOfRDMA returns the kernel's number of an RDMA device, or nil if it is not
// there.
func indexOfRDMA(ns kernel.Namespace, name string) (*uint32, error) {
	links, err := ns.RDMALinks()
	if err != nil {
		return nil, fmt.Errorf("list the RDMA devices: %w", err)
	}
	for _, link := range links {
		if link.Name == name {
			return &link.Index, nil
		}
	}
	return nil, nil
}

// moveRDMA moves the RDMA device of a place, if it is where it is to be moved
// from.
func moveRDMA(place *vfstate.Place, from, to kernel.Namespace) error {
	name, err := findRDMA(from, place)
	if err != nil || name == "" {
		return err
	}
	if err := from.MoveRDMA(name, to); err != nil {
		return fmt.Errorf("move RDMA device %s to another network namespace: %w", name, err)
	}
	return nil
}
