package v1alpha1

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// VfConfigKind is the kind of [VfConfig].
const VfConfigKind = "VfConfig"

// VfMode is how a pod uses a VF.
type VfMode string

// The ways in which a pod can use a VF.
const (
	// VfModeNetdevice gives the pod the VF's network interface, and its RDMA
	// device where there is one. This is the default.
	VfModeNetdevice VfMode = "netdevice"
	// VfModeRDMA gives the pod the VF's RDMA device nodes and no interface.
	VfModeRDMA VfMode = "rdma"
	// VfModeVFIO binds the VF to vfio-pci and gives the pod its group node, for
	// drivers in user space.
	VfModeVFIO VfMode = "vfio-pci"
)

// VfConfig configures a VF for a claim. What is left out stays as the machine
// has it. Of several configurations for the same request, as when a DeviceClass
// has one and the claim another, the later one counts as a whole, and the
// claim's own come after those of its DeviceClass: fields are never merged.
type VfConfig struct {
	metav1.TypeMeta `json:",inline"`

	// IfName is the interface's name in the pod. Default: net1, net2… in the
	// order of the claim's devices, skipping names that are taken.
	IfName string `json:"ifName,omitempty"`
	Mode   VfMode `json:"mode,omitempty"`

	// MAC is the interface's hardware address, such as "02:00:00:00:00:01".
	MAC string `json:"mac,omitempty"`
	// VLAN is what the NIC puts the VF's traffic into, 0…4094; 0 means none.
	VLAN *int `json:"vlan,omitempty"`
	// QoS is the VLAN's priority, 0…7.
	QoS *int `json:"qos,omitempty"`
	// Proto is "802.1q" (default) or "802.1ad".
	Proto string `json:"proto,omitempty"`
	// MTU is in bytes.
	MTU        *int  `json:"mtu,omitempty"`
	Trust      *bool `json:"trust,omitempty"`
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// LinkState is "auto", "enable" or "disable".
	LinkState string `json:"linkState,omitempty"`
	// MinTxRate and MaxTxRate are in Mbit/s; 0 means no limit.
	MinTxRate *int `json:"minTxRate,omitempty"`
	MaxTxRate *int `json:"maxTxRate,omitempty"`

	// Addresses are the interface's, with their prefix lengths, such as
	// "192.168.10.5/24".
	Addresses []string  `json:"addresses,omitempty"`
	Routes    []VfRoute `json:"routes,omitempty"`
	// IPAM is the "ipam" object of a CNI configuration: the plugin that it
	// names finds the interface's addresses.
	IPAM json.RawMessage `json:"ipam,omitempty"`
	// NetAttachDef names the NetworkAttachmentDefinition whose CNI plugins
	// attach the VF.
	NetAttachDef *NetAttachDef `json:"netAttachDef,omitempty"`
}

// VfRoute is a route over the VF's interface.
type VfRoute struct {
	// Destination is a network such as "10.0.0.0/8".
	Destination string `json:"destination"`
	// Gateway is left out for a directly connected network.
	Gateway string `json:"gateway,omitempty"`
	Metric  int    `json:"metric,omitempty"`
}

// NetAttachDef names a NetworkAttachmentDefinition.
type NetAttachDef struct {
	Name string `json:"name"`
	// Namespace is the claim's own by default. Another one must allow it, see
	// [AllowNetworkAttachmentsFromAnnotation].
	Namespace string `json:"namespace,omitempty"`
}

// AllowNetworkAttachmentsFromAnnotation is the annotation of a namespace that
// lists, separated by commas, the namespaces whose claims may use its
// NetworkAttachmentDefinitions; "*" allows all.
const AllowNetworkAttachmentsFromAnnotation = "eks-hybrid-dra/allow-network-attachments-from"

// DefaultVfConfig returns the configuration of a VF whose claim says nothing.
func DefaultVfConfig() *VfConfig {
	c := &VfConfig{TypeMeta: metav1.TypeMeta{APIVersion: SchemeGroupVersion.String(), Kind: VfConfigKind}}
	c.Default()
	return c
}

// DeepCopyObject returns a copy of the configuration.
func (c *VfConfig) DeepCopyObject() runtime.Object {
	if c == nil {
		return nil
	}
	out := *c
	for _, p := range []**int{&out.VLAN, &out.QoS, &out.MTU, &out.MinTxRate, &out.MaxTxRate} {
		*p = clonePointer(*p)
	}
	out.Trust, out.SpoofCheck = clonePointer(c.Trust), clonePointer(c.SpoofCheck)
	out.Addresses, out.Routes, out.IPAM = slices.Clone(c.Addresses), slices.Clone(c.Routes), slices.Clone(c.IPAM)
	out.NetAttachDef = clonePointer(c.NetAttachDef)
	return &out
}

// clonePointer returns a pointer to a copy, for values without pointers in
// them.
func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
