package allocation

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
)

// chooseGang chooses for claims of a gang, beside those that it has already.
func (c *Controller) chooseGang(ctx context.Context, g gang, claims []*resourceapi.ResourceClaim) ([]fit.Choice, error) {
	logger := klog.FromContext(ctx)
	ask := fit.Ask{Claims: claims, TopologyLabel: c.TopologyLabel, NodesOf: map[types.UID]func(*corev1.Node) bool{}}
	for _, claim := range claims {
		filter, err := c.nodesOf(logger, claim)
		if err != nil {
			return nil, err
		}
		ask.NodesOf[claim.UID] = filter
	}
	if value, ok := c.topologyOf(g.have); ok {
		// The rest goes where the first ones are.
		ask.TopologyLabel = ""
		ask.Nodes = func(node *corev1.Node) bool { return node.Labels[c.TopologyLabel] == value }
	}
	ask.Groups = slices.DeleteFunc(c.byPod(claims), func(g []*resourceapi.ResourceClaim) bool { return len(g) < 2 })
	return c.planner.Gang(ctx, ask)
}

// topologyOf returns the value of the topology label where the claims are.
func (c *Controller) topologyOf(claims []*resourceapi.ResourceClaim) (string, bool) {
	if c.TopologyLabel == "" {
		return "", false
	}
	view := c.Fleet.View()
	for _, claim := range claims {
		if node := view.Node(nodeOf(claim.Status.Allocation)); node != nil {
			return node.Object.Labels[c.TopologyLabel], true
		}
	}
	return "", false
}

// byPod groups claims that need the same node, because a pod uses several of
// them.
func (c *Controller) byPod(claims []*resourceapi.ResourceClaim) [][]*resourceapi.ResourceClaim {
	var groups [][]*resourceapi.ResourceClaim
	of := map[types.UID]int{} // group by pod
	for _, claim := range claims {
		group := -1
		pods := c.Consumers.Of(claim).Pods
		for _, pod := range pods {
			at, ok := of[pod.UID]
			switch {
			case !ok:
			case group < 0:
				group = at
			case at != group: // the claim joins two groups
				groups[group] = append(groups[group], groups[at]...)
				groups[at] = nil
				for uid, g := range of {
					if g == at {
						of[uid] = group
					}
				}
			}
		}
		if group < 0 {
			group, groups = len(groups), append(groups, nil)
		}
		groups[group] = append(groups[group], claim)
		for _, pod := range pods {
			of[pod.UID] = group
		}
	}
	return groups
}
