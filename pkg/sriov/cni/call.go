package cni

import (
	"net/netip"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// Call says for what a configuration is added or deleted.
type Call struct {
	// ContainerID is the ID of the pod's sandbox. Together with IfName it
	// identifies an attachment: what was added is deleted with the same two.
	ContainerID string
	// NetnsPath is where the pod's network namespace is bound on the host.
	// For a deletion it may lead nowhere.
	NetnsPath string
	// IfName is the name of the interface in the pod.
	IfName string
	// DeviceID is the VF's PCI address.
	DeviceID string
	// MAC is the hardware address that the interface is to have, empty for
	// any.
	MAC string
	Pod device.Pod
}

// Result is what the plugins say they have made.
type Result struct {
	// Interface is the name of the interface in the pod. It is empty for IPAM
	// alone.
	Interface string
	// MAC is the interface's hardware address, if a plugin told it.
	MAC string
	// Addresses are the interface's.
	Addresses []netip.Prefix
	// Routes are over that interface. Their Link is not set.
	Routes []kernel.Route
}
