package vfstate

import (
	"encoding/json"
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// FormatVersion is the version of the format that this release writes. A newer
// one is read as far as it is understood: fields are only ever added.
const FormatVersion = 1

// Journal is all that is known of a VF that a claim has.
type Journal struct {
	Version int `json:"version"`
	// Device is the VF's PCI address.
	Device string `json:"device"`
	// BootID is the kernel's boot id at the time of the preparation. A reboot
	// resets VFs, so that what is here is no longer true.
	BootID string       `json:"bootID"`
	Claim  device.Claim `json:"claim"`
	// Config is the claim's configuration of the VF.
	Config json.RawMessage `json:"config,omitempty"`
	// Network is the CNI configuration that attaches the VF, and IPAM the one
	// that finds its addresses.
	Network json.RawMessage `json:"network,omitempty"`
	IPAM    json.RawMessage `json:"ipam,omitempty"`
	// Former is what the VF was before. It is nil if that is not known any
	// more.
	Former *Former `json:"former,omitempty"`
	// Applied are the settings that were, or were about to be, changed.
	Applied Settings `json:"applied"`
	// Place is where the VF is, or is about to be, outside of the host's
	// network namespace.
	Place *Place `json:"place,omitempty"`
}

// Former is what a VF was before a claim got it.
type Former struct {
	// Interface is the name of its network interface, empty if it had none.
	Interface string `json:"interface,omitempty"`
	// AltNames are further names of its interface.
	AltNames        []string `json:"altNames,omitempty"`
	HardwareAddress string   `json:"hardwareAddress,omitempty"`
	MTU             int      `json:"mtu,omitempty"`
	// Settings are what its PF said of it.
	Settings Settings `json:"settings"`
	// Driver and DriverOverride are how it was bound.
	Driver         string `json:"driver,omitempty"`
	DriverOverride string `json:"driverOverride,omitempty"`
}

// Settings are those of a VF that only its PF can change. What is nil or empty
// is not known, or was not set.
type Settings struct {
	HardwareAddress string `json:"hardwareAddress,omitempty"`
	VLAN            *VLAN  `json:"vlan,omitempty"`
	SpoofCheck      *bool  `json:"spoofCheck,omitempty"`
	Trust           *bool  `json:"trust,omitempty"`
	LinkState       string `json:"linkState,omitempty"`
	TxRate          *Rate  `json:"txRate,omitempty"`
}

// VLAN is the VLAN that a PF puts a VF into; ID 0 means none.
type VLAN struct {
	ID       int    `json:"id"`
	QoS      int    `json:"qos,omitempty"`
	Protocol string `json:"protocol,omitempty"`
}

// Rate is in Mbit/s.
type Rate struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Place is a pod's network namespace that has the VF.
type Place struct {
	Sandbox device.Sandbox `json:"sandbox"`
	// Interface is the name that the VF's interface has, or is to have, there.
	// It is empty where only the RDMA device goes there.
	Interface string `json:"interface,omitempty"`
	// RDMA is the name of the RDMA device that goes there too.
	RDMA string `json:"rdma,omitempty"`
	// RDMAIndex is the kernel's number of that device, which stays when a pod
	// gives it another name. Nil means that it is not known.
	RDMAIndex *uint32 `json:"rdmaIndex,omitempty"`
	// CNI says that CNI plugins were run, or were about to be.
	CNI bool `json:"cni,omitempty"`
	// Done says that the VF is ready for the pod to use, as Attachment tells.
	// Otherwise an attachment has begun, and how far it came is not known.
	Done       bool              `json:"done,omitempty"`
	Attachment device.Attachment `json:"attachment"`
}

// decode reads a journal that is stored for the VF at an address.
func decode(data []byte, address topology.Address) (*Journal, error) {
	var j Journal
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, err
	}
	switch {
	case j.Version < 1:
		return nil, fmt.Errorf("version %d is not one that was ever written", j.Version)
	case j.Device != address.String():
		return nil, fmt.Errorf("it is for VF %q, not for %s", j.Device, address)
	case j.BootID == "":
		return nil, fmt.Errorf("it has no bootID")
	case j.Place != nil && j.Place.Sandbox.ID == "":
		return nil, fmt.Errorf("it names a place without a sandbox")
	}
	return &j, nil
}
