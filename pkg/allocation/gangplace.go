package allocation

import (
	"context"
	"fmt"
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
	groups := c.byPod(claims)
	if len(groups) == len(claims) {
		return c.planner.Gang(ctx, ask)
	}
	return c.chooseGroups(ctx, ask, groups)
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
	return slices.DeleteFunc(groups, func(g []*resourceapi.ResourceClaim) bool { return len(g) == 0 })
}

// chooseGroups chooses a node for each group, one value of the topology label
// after the other.
func (c *Controller) chooseGroups(ctx context.Context, ask fit.Ask, groups [][]*resourceapi.ResourceClaim) ([]fit.Choice, error) {
	slices.SortStableFunc(groups, func(a, b []*resourceapi.ResourceClaim) int { return len(b) - len(a) })
	if ask.TopologyLabel == "" {
		return c.placeGroups(ctx, ask, groups)
	}
	var values []string
	for _, node := range c.Fleet.View().Nodes() {
		if value := node.Object.Labels[ask.TopologyLabel]; value != "" && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	last := fmt.Errorf("%w: no node has the label %s", fit.ErrNoFit, ask.TopologyLabel)
	for _, value := range values {
		within := ask
		within.Nodes = func(node *corev1.Node) bool { return node.Labels[ask.TopologyLabel] == value }
		choices, err := c.placeGroups(ctx, within, groups)
		if err == nil {
			return choices, nil
		}
		last = err
	}
	return nil, last
}

// placeGroups takes what it has chosen for one group in the fleet while it
// chooses for the next, and gives all of it back at the end.
func (c *Controller) placeGroups(ctx context.Context, ask fit.Ask, groups [][]*resourceapi.ResourceClaim) ([]fit.Choice, error) {
	chosen := map[types.UID]fit.Choice{}
	defer func() {
		for uid := range chosen {
			c.Fleet.Forget(uid)
		}
	}()
	for _, group := range groups {
		choices, err := c.planner.Together(ctx, fit.Ask{Claims: group, Nodes: func(node *corev1.Node) bool {
			if ask.Nodes != nil && !ask.Nodes(node) {
				return false
			}
			return !slices.ContainsFunc(group, func(claim *resourceapi.ResourceClaim) bool { return !ask.NodesOf[claim.UID](node) })
		}})
		if err != nil {
			return nil, err
		}
		for i := range choices {
			if err := c.Fleet.Assume(choices[i].Claim, &choices[i].Allocation); err != nil {
				return nil, err
			}
			chosen[choices[i].Claim] = choices[i]
		}
	}
	all := make([]fit.Choice, len(ask.Claims))
	for i, claim := range ask.Claims {
		all[i] = chosen[claim.UID]
	}
	return all, nil
}
