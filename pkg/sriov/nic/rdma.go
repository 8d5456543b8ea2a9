package nic

import (
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// layerInfiniBand is what a port's link_layer says.
const layerInfiniBand = "InfiniBand"

// connectionManager is the node that every RDMA program needs.
const connectionManager = "infiniband/rdma_cm"

// rdma finds the RDMA device of a function, or returns nil.
//
// The device is below the PCI function, or, where it is made in software as by
// rdma_rxe, names the interface that it stands on. In exclusive mode it can be
// seen only in the network namespace that has it, but its nodes, which know its
// name, can be seen always.
func (s *scanner) rdma(address topology.Address, netdev *kernel.Link) *RDMA {
	folder := s.path(address, "infiniband")
	device := first(names(folder))
	if device == "" && netdev != nil {
		folder = filepath.Join(s.SysfsRoot, "class", "infiniband")
		device = s.standingOn(folder, netdev.Name)
	}
	verbs, mads := nodes(s.path(address, "infiniband_verbs"), "uverbs", ""), nodes(s.path(address, "infiniband_mad"), "umad", "")
	if device == "" && len(verbs) == 0 {
		return nil
	}
	rdma := &RDMA{Name: device}
	if device == "" {
		rdma.Name = text(s.path(address, "infiniband_verbs", first(verbs), "ibdev"))
	} else {
		rdma.read(filepath.Join(folder, device))
	}
	if len(verbs) == 0 {
		class := filepath.Join(s.SysfsRoot, "class")
		verbs = nodes(filepath.Join(class, "infiniband_verbs"), "uverbs", device)
		mads = nodes(filepath.Join(class, "infiniband_mad"), "umad", device)
	}
	for _, link := range s.rdmaLinks {
		if guid, err := net.ParseMAC(link.NodeGUID); err == nil && link.Name == rdma.Name {
			rdma.NodeGUID = guid
		}
	}
	for _, node := range slices.Concat(verbs, mads) {
		rdma.CharDevices = append(rdma.CharDevices, "infiniband/"+node)
	}
	rdma.CharDevices = append(rdma.CharDevices, connectionManager)
	return rdma
}

// read reads what sysfs tells of the device and of its first port.
func (r *RDMA) read(folder string) {
	port := filepath.Join(folder, "ports", "1")
	r.State = parseState(text(filepath.Join(port, "state")))
	r.LinkLayer = text(filepath.Join(port, "link_layer"))
	r.RateMbps = parseRate(text(filepath.Join(port, "rate")))
	r.NodeGUID = parseGUID(text(filepath.Join(folder, "node_guid")))
}

// standingOn returns the RDMA device that is made in software on an interface.
func (s *scanner) standingOn(class, netdev string) string {
	for _, name := range names(class) {
		if text(filepath.Join(class, name, "parent")) == netdev {
			return name
		}
	}
	return ""
}

// nodes lists the device nodes in a folder, those of one RDMA device if one is
// named.
func nodes(folder, prefix, rdma string) []string {
	return slices.DeleteFunc(names(folder), func(name string) bool {
		return !strings.HasPrefix(name, prefix) || rdma != "" && text(filepath.Join(folder, name, "ibdev")) != rdma
	})
}

// parseState reads "4: ACTIVE".
func parseState(s string) string {
	_, state, _ := strings.Cut(s, ":")
	return strings.TrimSpace(state)
}

// parseRate reads "400 Gb/sec (4X NDR)" and "2.5 Gb/sec (1X SDR)".
func parseRate(s string) int {
	number, unit, _ := strings.Cut(s, " ")
	rate, err := strconv.ParseFloat(number, 32)
	if err != nil || !strings.HasPrefix(unit, "Gb/sec") || !(rate > 0 && rate < 1e6) {
		return 0
	}
	return int(rate * 1000)
}

// parseGUID reads "a088:c203:0012:3456", the form of sysfs. It returns nil for
// anything else.
func parseGUID(s string) net.HardwareAddr {
	guid, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(guid) != 8 {
		return nil
	}
	return guid
}

// names lists a folder. What cannot be listed is empty.
func names(folder string) []string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// text reads a file of one line. What cannot be read is empty.
func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
