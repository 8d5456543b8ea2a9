package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeConfigKind is the kind of [NodeConfig].
const NodeConfigKind = "NodeConfig"

// NodeConfig is the configuration file of the kubelet plugin, for what flags
// cannot say well. It is no configuration for claims.
type NodeConfig struct {
	metav1.TypeMeta `json:",inline"`

	SRIOV   SRIOVConfig   `json:"sriov,omitempty"`
	Pairing PairingConfig `json:"pairing,omitempty"`
	NCCL    NCCLConfig    `json:"nccl,omitempty"`
	Managed ManagedConfig `json:"managed,omitempty"`

	DevicePlugin DevicePluginConfig `json:"devicePlugin,omitempty"`

	// NodeLabels is nil where the plugin has nothing to do with labels of its
	// Node.
	NodeLabels *NodeLabelsConfig `json:"nodeLabels,omitempty"`
}

// ManagedConfig says which of the node's devices this project's controller gives
// to claims. All others are kube-scheduler's.
type ManagedConfig struct {
	// Kinds are the kinds of devices that the controller gives: gpu, gpu-vf and
	// vf. Devices that share something always have the same allocator, so each
	// kind takes along those that share with it. None means that kube-scheduler
	// gives everything.
	Kinds []string `json:"kinds,omitempty"`
	// NodeSelector are labels, each with its value, that the Node must have for
	// Kinds to count. Empty: they count on every node that has this
	// configuration.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Settle is how long a device whose allocator changes is given to nobody, so
	// that what the former allocator has decided and not written yet is written
	// by then: a duration such as "30s", which is the default. The least is 1s.
	Settle string `json:"settle,omitempty"`
}

// PairingConfig says which GPUs are also given together with a VF of the NIC
// beside them. The plugin finds out by itself what is beside what; this is for
// when it is to be otherwise.
type PairingConfig struct {
	// LeastAlignment is how near a NIC must be to a GPU at least, in the words
	// of "nvidia-smi topo -m": PIX, PXB, PHB, NODE or SYS. The default is NODE:
	// the same NUMA node.
	LeastAlignment string `json:"leastAlignment,omitempty"`
	// Pairs are decided here, however near the two are. The other GPUs find
	// their NICs among all, those named here too.
	Pairs []GPUNICPair `json:"pairs,omitempty"`
}

// GPUNICPair joins a GPU with a NIC.
type GPUNICPair struct {
	// GPU is the GPU's PCI address, such as "0000:1b:00.0".
	GPU string `json:"gpu"`
	// NIC is the PCI address of the NIC's PF, such as "0000:18:00.0". A GPU
	// without one stays alone.
	NIC string `json:"nic,omitempty"`
}

// NCCLConfig is about what containers are told for NVIDIA's NCCL.
type NCCLConfig struct {
	// SetIBHCA gives containers with GPUs and RDMA devices of one claim the
	// environment variable NCCL_IB_HCA, with the RDMA devices in the order of
	// the GPUs.
	SetIBHCA bool `json:"setIBHCA,omitempty"`
}

// SRIOVConfig says which VFs are published, and which are made.
type SRIOVConfig struct {
	// Selectors choose VFs; one that matches any selector is published.
	// Without selectors every VF is, except those of PFs that the host itself
	// uses.
	Selectors []VFSelector `json:"selectors,omitempty"`
}

// VFSelector chooses VFs. All its conditions must hold; of the values of one
// condition any must. A condition that is left out always holds. The meaning
// of each is the one known from the SR-IOV network device plugin.
type VFSelector struct {
	// Vendors and Devices are PCI ids of VFs, such as "15b3" and "101e".
	Vendors []string `json:"vendors,omitempty"`
	Devices []string `json:"devices,omitempty"`
	// Drivers are those bound to the VF, such as "mlx5_core".
	Drivers []string `json:"drivers,omitempty"`
	// PFNames are interface names of PFs, each with an optional list of VF
	// numbers: "ibp24s0", "ibp24s0#0-3", "ibp24s0#0,2-7". A PF that the host
	// itself uses is chosen only if it is named here, in RootDevices, or one of
	// its VFs in PCIAddresses.
	PFNames []string `json:"pfNames,omitempty"`
	// RootDevices are PCI addresses of PFs, with the same optional list.
	RootDevices []string `json:"rootDevices,omitempty"`
	// PCIAddresses are those of VFs.
	PCIAddresses []string `json:"pciAddresses,omitempty"`
	// LinkTypes are "ether" and "infiniband".
	LinkTypes []string `json:"linkTypes,omitempty"`
	// RDMA chooses VFs with (true) or without (false) an RDMA device.
	RDMA *bool `json:"rdma,omitempty"`

	// NumVFs is how many VFs each PF that the selector matches must have. A PF
	// that has none is given that many; one that has another number is
	// reported and left alone. Conditions on VFs are read as conditions on the
	// VFs that the PF would have.
	NumVFs *int `json:"numVFs,omitempty"`
	// ExternallyManaged says that somebody else makes the VFs: the number is
	// checked only.
	ExternallyManaged bool `json:"externallyManaged,omitempty"`
	// MTU is what the PF, and with it the VFs, are set to, in bytes.
	MTU *int `json:"mtu,omitempty"`
}
