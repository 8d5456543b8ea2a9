package claimstore

import "encoding/json"

// Alignment is how near a GPU and a VF of one claim are.
type Alignment struct {
	// GPU and VF are the names of the devices in the pool, which are the same
	// for a composite, and the addresses are those of their PCI functions.
	GPU        string `json:"gpu"`
	GPUAddress string `json:"gpuAddress"`
	VF         string `json:"vf"`
	VFAddress  string `json:"vfAddress"`
	// Relation is in the words of "nvidia-smi topo -m", or "unknown".
	Relation string `json:"relation"`
	// GPUNUMANode and VFNUMANode are missing where the machine tells none.
	GPUNUMANode *int `json:"gpuNUMANode,omitempty"`
	VFNUMANode  *int `json:"vfNUMANode,omitempty"`

	unknown map[string]json.RawMessage
}

type plainAlignment Alignment

// UnmarshalJSON keeps the fields that this release does not know.
func (a *Alignment) UnmarshalJSON(data []byte) (err error) {
	a.unknown, err = decodeKeeping(data, (*plainAlignment)(a))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (a Alignment) MarshalJSON() ([]byte, error) { return encodeKeeping(plainAlignment(a), a.unknown) }
