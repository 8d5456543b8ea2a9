package cniaffinity

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Annotation is on each object that was changed, and says what it had before.
const Annotation = "eks-hybrid-dra/cni-affinity"

// recordVersion is that of the annotation's form.
const recordVersion = 1

// saved is what the annotation holds.
type saved struct {
	Version int               `json:"version"`
	Nodes   v1alpha1.NodeSide `json:"nodes"`
	// Original is the selector before the change, nil if there was none.
	Original *corev1.NodeSelector `json:"original,omitempty"`
	// Present is how many elements of the path to the selector there were before
	// the change. Those that are empty and were not there go with it.
	Present int `json:"present"`
	// Applied is the selector that was written.
	Applied *corev1.NodeSelector `json:"applied"`
}

// parseRecord returns nil without an error if there is no annotation.
func parseRecord(annotations map[string]string) (*saved, error) {
	text, ok := annotations[Annotation]
	if !ok {
		return nil, nil //nolint:nilnil // no record is no error
	}
	r := &saved{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("annotation %s cannot be read: %w: put the node affinity right by hand, and remove the annotation", Annotation, err)
	}
	if r.Version != recordVersion || r.Applied == nil || r.Nodes != v1alpha1.HybridNodes && r.Nodes != v1alpha1.CloudNodes {
		return nil, fmt.Errorf("annotation %s has version %d and nodes %q, which this release does not know: use the release that wrote it, or put the node affinity right by hand and remove the annotation", Annotation, r.Version, r.Nodes)
	}
	return r, nil
}

func (r *saved) String() string {
	text, err := json.Marshal(r)
	if err != nil {
		return err.Error() // selectors can always be written as JSON
	}
	return string(text)
}

// originalOf returns the term of the original selector of which a term was made by
// adding our expression, or nil.
func (r *saved) originalOf(term corev1.NodeSelectorTerm) *corev1.NodeSelectorTerm {
	if r.Original == nil || len(r.Original.NodeSelectorTerms) != len(r.Applied.NodeSelectorTerms) {
		return nil
	}
	for i, applied := range r.Applied.NodeSelectorTerms {
		if equality.Semantic.DeepEqual(applied, term) {
			return &r.Original.NodeSelectorTerms[i]
		}
	}
	return nil
}
