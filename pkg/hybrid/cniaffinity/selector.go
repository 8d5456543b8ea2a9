package cniaffinity

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// expression is what keeps pods on one side. A node without the label is a cloud
// node, for which NotIn holds, too.
func expression(side v1alpha1.NodeSide) corev1.NodeSelectorRequirement {
	operator := corev1.NodeSelectorOpIn
	if side == v1alpha1.CloudNodes {
		operator = corev1.NodeSelectorOpNotIn
	}
	return corev1.NodeSelectorRequirement{Key: v1alpha1.LabelComputeType, Operator: operator, Values: []string{v1alpha1.ComputeTypeHybrid}}
}

// implies tells whether a requirement that somebody wrote keeps pods on the side
// already.
func implies(r corev1.NodeSelectorRequirement, side v1alpha1.NodeSide) bool {
	if r.Key != v1alpha1.LabelComputeType {
		return false
	}
	hybrid := slices.Contains(r.Values, v1alpha1.ComputeTypeHybrid)
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		others := slices.ContainsFunc(r.Values, func(v string) bool { return v != v1alpha1.ComputeTypeHybrid })
		return side == v1alpha1.HybridNodes && hybrid && !others || side == v1alpha1.CloudNodes && !hybrid && others
	case corev1.NodeSelectorOpNotIn:
		return side == v1alpha1.CloudNodes && hybrid
	case corev1.NodeSelectorOpDoesNotExist:
		return side == v1alpha1.CloudNodes
	}
	return false
}

// kept tells whether no node of the other side matches, because of what each term
// says.
func kept(selector *corev1.NodeSelector, side v1alpha1.NodeSide) bool {
	return selector != nil && !slices.ContainsFunc(selector.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool { return !keptBy(t, side) })
}

// keptBy is kept for one term. An empty term matches no node, so adding to it
// would add nodes.
func keptBy(t corev1.NodeSelectorTerm, side v1alpha1.NodeSide) bool {
	return len(t.MatchExpressions) == 0 && len(t.MatchFields) == 0 ||
		slices.ContainsFunc(t.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool { return implies(r, side) })
}

// merge returns a selector of the nodes that match the one given and are on the
// side. Terms are alternatives, so each must say it. No selector matches all nodes;
// one without terms matches none.
func merge(selector *corev1.NodeSelector, side v1alpha1.NodeSide) *corev1.NodeSelector {
	if selector == nil {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{expression(side)}},
		}}
	}
	merged := selector.DeepCopy()
	for i := range merged.NodeSelectorTerms {
		if t := &merged.NodeSelectorTerms[i]; !keptBy(*t, side) {
			t.MatchExpressions = append(t.MatchExpressions, expression(side))
		}
	}
	return merged
}

// unmerge returns what a selector is without what this package has added. As long
// as it is what was written, that is the original. If somebody has changed it since,
// our expression alone is taken out of what is new, so that no node loses its pod by
// that.
func unmerge(current *corev1.NodeSelector, r *saved) *corev1.NodeSelector {
	if equality.Semantic.DeepEqual(current, r.Applied) {
		return r.Original.DeepCopy()
	}
	if current == nil {
		return nil
	}
	return takeOut(current, r)
}

// takeOut takes our expression out of each term that has it.
func takeOut(current *corev1.NodeSelector, r *saved) *corev1.NodeSelector {
	ours := expression(r.Nodes)
	result := &corev1.NodeSelector{}
	for _, term := range current.NodeSelectorTerms {
		term = *term.DeepCopy()
		if original := r.originalOf(term); original != nil {
			result.NodeSelectorTerms = append(result.NodeSelectorTerms, *original.DeepCopy())
			continue
		}
		expressions := len(term.MatchExpressions)
		term.MatchExpressions = slices.DeleteFunc(term.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool {
			return equality.Semantic.DeepEqual(e, ours)
		})
		if expressions > 0 && len(term.MatchExpressions) == 0 {
			if term.MatchExpressions = nil; len(term.MatchFields) == 0 {
				// It said nothing else: an alternative that all nodes match.
				return nil
			}
		}
		result.NodeSelectorTerms = append(result.NodeSelectorTerms, term)
	}
	return result
}

// matching counts the nodes on which pods with this node selector and this required
// affinity may run.
func matching(nodes []*corev1.Node, nodeSelector map[string]string, required *corev1.NodeSelector) int {
	n := 0
	for _, node := range nodes {
		if !labels.SelectorFromSet(nodeSelector).Matches(labels.Set(node.Labels)) {
			continue
		}
		if required != nil {
			// What cannot be parsed matches nothing, as kube-scheduler has it.
			if ok, err := nodeaffinity.NewLazyErrorNodeSelector(required).Match(node); err != nil || !ok {
				continue
			}
		}
		n++
	}
	return n
}
