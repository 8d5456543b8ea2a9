package cniaffinity

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// change is what is to be written to an object.
type change struct {
	// required is the selector from now on.
	required *corev1.NodeSelector
	// record goes to the annotation; nil: no annotation.
	record *saved
	// present is for [state.patch].
	present int
	// again tells that our expression was there before and is gone.
	again bool
	// moves tells that the selector changes, and so the pods are replaced.
	moves bool
}

// keep returns what to write so that the pods stay on a side, or nil if nothing is.
// Effective is what selects nodes in place of a selector that is not there: that
// which an operator uses unless its object has another.
func keep(s *state, side v1alpha1.NodeSide, effective *corev1.NodeSelector) *change {
	r := s.record
	if r != nil && r.Nodes == side && equality.Semantic.DeepEqual(s.required, r.Applied) {
		return nil
	}
	if keptByLabels(s.nodeSelector, side) || kept(s.required, side) {
		return adopt(s, side)
	}
	original, present := s.required, s.present
	if r != nil {
		if original = unmerge(s.required, r); original == nil {
			present = min(present, r.Present)
		}
	}
	base := original
	switch {
	case base != nil:
	case s.required == nil:
		base = effective
	case r != nil:
		// Of an operator's selector, what it would be without us.
		base = takeOut(s.required, r)
	}
	applied := merge(base, side)
	return &change{
		required: applied, present: present,
		record: &saved{Version: recordVersion, Nodes: side, Original: original, Present: present, Applied: applied},
		again:  r != nil && r.Nodes == side, moves: true,
	}
}

// adopt returns what to write where the pods stay on the side already: nothing but
// a new record, or none, where the owner has changed what is around our expression.
func adopt(s *state, side v1alpha1.NodeSide) *change {
	r := s.record
	if r == nil {
		return nil
	}
	if r.Nodes != side {
		return release(s)
	}
	original := unmerge(s.required, r)
	if equality.Semantic.DeepEqual(original, s.required) {
		// The owner keeps them there without us.
		return &change{required: s.required, present: s.present}
	}
	present := s.present
	if original == nil {
		present = min(present, r.Present)
	}
	return &change{
		required: s.required, present: present,
		record: &saved{Version: recordVersion, Nodes: side, Original: original, Present: present, Applied: s.required},
	}
}

// release returns what to write so that the owner has back what is its own, or nil
// if it has.
func release(s *state) *change {
	if s.record == nil {
		return nil
	}
	original := unmerge(s.required, s.record)
	return &change{required: original, present: s.record.Present, moves: !equality.Semantic.DeepEqual(original, s.required)}
}

// keptByLabels is kept for the simple selector that pods have beside the affinity.
func keptByLabels(nodeSelector map[string]string, side v1alpha1.NodeSide) bool {
	value, ok := nodeSelector[v1alpha1.LabelComputeType]
	return ok && (value == v1alpha1.ComputeTypeHybrid) == (side == v1alpha1.HybridNodes)
}
