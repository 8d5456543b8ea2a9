package allocation

import (
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// transition notes what a change of a claim means beyond its new state: who
// took an allocation back, and why.
func (f *feed) transition(before, now *resourceapi.ResourceClaim) {
	if before == nil || !f.leads() || now.DeletionTimestamp != nil {
		return
	}
	had, has := before.Status.Allocation != nil, now.Status.Allocation != nil
	if !had && has {
		f.memory.update(now.UID, func(r *remembered) { r.freeing, r.used, r.again, r.told = false, false, r.used, "" })
	}
	if !had || has {
		return
	}
	if ours, _ := f.ours(now); !ours {
		return
	}
	switch {
	case f.memory.of(now.UID).freeing:
	case len(before.Status.ReservedFor) > 0:
		f.memory.update(now.UID, func(r *remembered) { r.used = true })
	default:
		node := nodeOf(before.Status.Allocation)
		wait := f.memory.leaveOut(now.UID, node)
		f.Metrics.Failed(now, measure.ReasonDeallocatedByScheduler)
		f.warn(now, ReasonDeallocatedByScheduler, "kube-scheduler took the devices on node %s back, because the claim's pod does not fit there; other nodes are tried, and %s again after %s", node, node, wait)
	}
}

// nodeOf returns the node of an allocation; empty if it is for several.
func nodeOf(allocation *resourceapi.AllocationResult) string {
	if allocation == nil || allocation.NodeSelector == nil || len(allocation.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	for _, field := range allocation.NodeSelector.NodeSelectorTerms[0].MatchFields {
		if field.Key == "metadata.name" && field.Operator == corev1.NodeSelectorOpIn && len(field.Values) == 1 {
			return field.Values[0]
		}
	}
	return ""
}

// claimsOf returns the claims of a pod that are known.
func (c *Controller) claimsOf(pod *corev1.Pod) []*resourceapi.ResourceClaim {
	found := map[types.UID]bool{}
	var all []*resourceapi.ResourceClaim
	add := func(claim *resourceapi.ResourceClaim) {
		if claim != nil && !found[claim.UID] {
			found[claim.UID] = true
			all = append(all, claim)
		}
	}
	for _, key := range consumers.ClaimsOf(pod) {
		add(c.claims.get(key))
	}
	for _, claim := range c.claims.ofOwner(pod.UID) {
		add(claim)
	}
	return all
}
