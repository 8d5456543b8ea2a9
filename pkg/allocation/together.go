package allocation

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
)

// companions are claims that are to be allocated at the same time, because pods
// use several of them.
type companions struct {
	// claims are those that were asked about, and after them the ones of no gang
	// that go with them.
	claims []*resourceapi.ResourceClaim
	// gangs have claims that are to be allocated with these.
	gangs []types.NamespacedName
	// awaits is a pod with claims that are not known yet; nil if there is none.
	awaits *corev1.Pod
}

// together returns which claims are to be allocated with the given ones, from
// pod to pod.
func (c *Controller) together(first ...*resourceapi.ResourceClaim) companions {
	set := companions{claims: slices.Clone(first)}
	found := map[types.UID]bool{}
	for _, claim := range first {
		found[claim.UID] = true
	}
	for i := 0; i < len(set.claims); i++ { // it grows on the way
		for _, pod := range c.Consumers.Of(set.claims[i]).Pods {
			if len(pod.Spec.ResourceClaims) < 2 {
				continue
			}
			if consumers.ClaimsToCome(pod) {
				set.awaits = pod
				return set
			}
			for _, other := range c.claimsOf(pod) {
				ours, _ := c.ours(other)
				if found[other.UID] || !ours || other.Status.Allocation != nil || other.DeletionTimestamp != nil {
					continue
				}
				found[other.UID] = true
				if gang := gangOf(other); gang.Name != "" {
					set.gangs = append(set.gangs, gang)
				} else if c.wanted(other) {
					set.claims = append(set.claims, other)
				}
			}
		}
	}
	return set
}

// giveBack frees what other claims of a pod have while nobody uses it, so that
// they are chosen anew with this one.
func (c *Controller) giveBack(ctx context.Context, pod *corev1.Pod, claim *resourceapi.ResourceClaim, why string) error {
	if pod.Spec.NodeName != "" {
		return nil
	}
	for _, other := range c.claimsOf(pod) {
		ours, _ := c.ours(other)
		if other.UID == claim.UID || !ours || other.Status.Allocation == nil || len(other.Status.ReservedFor) > 0 || c.gangInUse(other) {
			continue
		}
		if mine := gangOf(claim); mine.Name != "" && gangOf(other).Name != "" {
			continue // gangs do not take from themselves, or from each other
		}
		node := nodeOf(other.Status.Allocation)
		switch freed, err := c.free(ctx, other, ""); {
		case err != nil:
			return err
		case !freed:
			continue
		}
		c.inform(other, ReasonFreed, "The devices on node %s were taken back: %s", node, why)
	}
	return nil
}
