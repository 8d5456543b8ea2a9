package claimstatus

import (
	"encoding/json"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// alignmentData is what the status of a claim says of one of its devices, in
// status.devices[].data. The fields are in the order of the alphabet, in which
// the API server may write them anew.
type alignmentData struct {
	Alignment  []alignmentPair `json:"alignment"`
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
}

// alignmentPair is a GPU and a VF, known by their PCI addresses.
type alignmentPair struct {
	GPU         string `json:"gpu"`
	GPUNUMANode *int   `json:"gpuNUMANode,omitempty"`
	Relation    string `json:"relation"`
	VF          string `json:"vf"`
	VFNUMANode  *int   `json:"vfNUMANode,omitempty"`
}

// alignmentKind is the kind of the data in the status of a claim's devices.
const alignmentKind = "DeviceAlignment"

// dataOf returns what a claim's status says of a device: how near the claim's
// VFs are to its GPU, or the claim's GPUs to the VF that it is. It is nil where
// there is nothing to be near to.
func dataOf(record *claimstore.Record, entry claimstore.Device) []byte {
	of := func(name func(claimstore.Alignment) string) []alignmentPair {
		var all []alignmentPair
		for _, a := range record.Alignment {
			if name(a) == entry.Device {
				all = append(all, alignmentPair{GPU: a.GPUAddress, GPUNUMANode: a.GPUNUMANode, Relation: a.Relation, VF: a.VFAddress, VFNUMANode: a.VFNUMANode})
			}
		}
		return all
	}
	all := of(func(a claimstore.Alignment) string { return a.GPU })
	if len(all) == 0 {
		all = of(func(a claimstore.Alignment) string { return a.VF })
	}
	if len(all) == 0 {
		return nil
	}
	data, err := json.Marshal(alignmentData{Alignment: all, APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: alignmentKind})
	if err != nil {
		return nil // strings and numbers always encode
	}
	return data
}
