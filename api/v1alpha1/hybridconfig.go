package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// HybridConfigKind is the kind of [HybridConfig].
const HybridConfigKind = "HybridConfig"

// LabelComputeType is the label by which EKS tells nodes of a site, whose value
// is [ComputeTypeHybrid], from those in the cloud, which have another value or
// none: https://docs.aws.amazon.com/eks/latest/userguide/hybrid-nodes-cni.html.
const (
	LabelComputeType  = "eks.amazonaws.com/compute-type"
	ComputeTypeHybrid = "hybrid"
)

// HybridConfig is the configuration file of the controller for what a cluster
// with hybrid nodes needs around the driver. It is no configuration for claims.
type HybridConfig struct {
	metav1.TypeMeta `json:",inline"`

	// CNIAffinity, if it is there, has the controller keep DaemonSets of network
	// plugins on the nodes they belong on.
	CNIAffinity *CNIAffinityConfig `json:"cniAffinity,omitempty"`
	// PullSecret, if it is there, has the controller copy a Secret with the
	// credentials of a registry.
	PullSecret *PullSecretConfig `json:"pullSecret,omitempty"`
}

// CNIAffinityConfig lists DaemonSets. One that was changed before and is not in
// the list any more gets back what it had.
type CNIAffinityConfig struct {
	DaemonSets []CNIDaemonSets `json:"daemonSets,omitempty"`
}

// CNIDaemonSets are one DaemonSet, or those of one network plugin.
type CNIDaemonSets struct {
	// Preset names a network plugin whose DaemonSets are known: cilium, calico
	// or aws-node. It excludes Namespace and Name.
	Preset string `json:"preset,omitempty"`
	// Namespace and Name are those of the DaemonSet.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Nodes are where it is kept. A preset has a default: hybrid for cilium and
	// calico, cloud for aws-node.
	Nodes NodeSide `json:"nodes,omitempty"`
}

// NodeSide is a part of the cluster's nodes.
type NodeSide string

// The parts of a cluster. AnyNodes leaves a DaemonSet to its owner, and gives
// back to it what was changed before.
const (
	HybridNodes NodeSide = "hybrid"
	CloudNodes  NodeSide = "cloud"
	AnyNodes    NodeSide = "any"
)

// PullSecretConfig says which Secret is copied to which namespaces.
type PullSecretConfig struct {
	// Name is that of a Secret of type kubernetes.io/dockerconfigjson in the
	// controller's own namespace, and of its copies. Without a name nothing is
	// copied.
	Name string `json:"name,omitempty"`
	// Namespaces get a copy. Those that do not exist yet get it once they do.
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelector chooses further namespaces by their labels.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// FormerNames are names that Name had before. Copies under these names are
	// removed.
	FormerNames []string `json:"formerNames,omitempty"`
}

// DaemonSet is a DaemonSet and where it is kept.
type DaemonSet struct {
	Namespace, Name string
	Nodes           NodeSide
}

// Expand returns the DaemonSets that the entry stands for. An unknown preset
// stands for none.
func (c CNIDaemonSets) Expand() []DaemonSet {
	if c.Preset == "" {
		return []DaemonSet{{Namespace: c.Namespace, Name: c.Name, Nodes: c.Nodes}}
	}
	var all []DaemonSet
	for _, name := range presetDaemonSets(c.Preset) {
		name.Nodes = c.Nodes
		all = append(all, name)
	}
	return all
}

// Presets are the names of the network plugins whose DaemonSets are known.
func Presets() []string { return []string{"aws-node", "calico", "cilium"} }

// presetDaemonSets returns the names that the DaemonSets of a network plugin have
// when it is installed as its makers say.
func presetDaemonSets(preset string) []DaemonSet {
	switch preset {
	case "aws-node":
		// The add-on vpc-cni of EKS.
		return []DaemonSet{{Namespace: "kube-system", Name: "aws-node"}}
	case "calico":
		// By Calico's operator, and by its plain manifest.
		return []DaemonSet{{Namespace: "calico-system", Name: "calico-node"}, {Namespace: "kube-system", Name: "calico-node"}}
	case "cilium":
		// Its chart and its CLI; Envoy has a DaemonSet of its own since 1.16.
		return []DaemonSet{{Namespace: "kube-system", Name: "cilium"}, {Namespace: "kube-system", Name: "cilium-envoy"}}
	}
	return nil
}

// Default fills in what the user left out.
func (c *HybridConfig) Default() {
	if c.CNIAffinity == nil {
		return
	}
	for i := range c.CNIAffinity.DaemonSets {
		entry := &c.CNIAffinity.DaemonSets[i]
		switch {
		case entry.Nodes != "" || entry.Preset == "":
		case entry.Preset == "aws-node":
			entry.Nodes = CloudNodes
		default:
			entry.Nodes = HybridNodes
		}
	}
}

// DeepCopyObject returns a copy of the configuration.
func (c *HybridConfig) DeepCopyObject() runtime.Object {
	copied := *c
	if c.CNIAffinity != nil {
		copied.CNIAffinity = &CNIAffinityConfig{DaemonSets: slices.Clone(c.CNIAffinity.DaemonSets)}
	}
	if c.PullSecret != nil {
		p := *c.PullSecret
		p.Namespaces, p.FormerNames = slices.Clone(p.Namespaces), slices.Clone(p.FormerNames)
		p.NamespaceSelector = p.NamespaceSelector.DeepCopy()
		copied.PullSecret = &p
	}
	return &copied
}

// DecodeHybridConfig returns the configuration in a file in YAML or JSON, with
// its defaults filled in. Unknown and repeated fields, another kind and wrong
// values are errors that name them.
func DecodeHybridConfig(raw []byte) (*HybridConfig, error) {
	return decodeFile(raw, "the controller", HybridConfigKind, &HybridConfig{})
}
