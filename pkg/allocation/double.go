package allocation

import (
	"cmp"
	"context"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// resolveDouble looks whether a claim was given what another one has. The API
// cannot prevent that: it takes a controller that was held up for long between
// its choice and its write while another one already led. The claim that has the
// weaker right gives its devices back; if a pod has reserved them, it can only
// be told, and the node refuses to prepare them a second time.
func (c *Controller) resolveDouble(ctx context.Context, claim *resourceapi.ResourceClaim) (freed bool, err error) {
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != c.DriverName || ptr.Deref(result.AdminAccess, false) || result.ShareID != nil {
			continue
		}
		winner := c.stronger(claim, result.Pool)
		if winner == nil {
			c.lookAtRivals(claim, result.Pool, result.Device)
			continue
		}
		klog.FromContext(ctx).Info("Two claims have the same device", "claim", klog.KObj(claim), "other", klog.KObj(winner), "pool", result.Pool)
		if len(claim.Status.ReservedFor) > 0 {
			if c.memory.once(claim.UID, ReasonDoubleAllocation) {
				c.Metrics.Failed(claim, measure.ReasonDoubleAllocation)
				c.warn(claim, ReasonDoubleAllocation, "The claim has devices of pool %s that claim %s/%s has, too; the node prepares them for the first of the two only. Delete the pod %s, so that the claim is allocated anew",
					result.Pool, winner.Namespace, winner.Name, claim.Status.ReservedFor[0].Name)
			}
			return false, nil
		}
		if freed, err := c.free(ctx, claim, ""); !freed {
			return true, err
		}
		c.Metrics.Failed(claim, measure.ReasonDoubleAllocation)
		c.warn(claim, ReasonDoubleAllocation, "The claim had devices of pool %s that claim %s/%s has, too; they were taken back, and the claim is allocated anew", result.Pool, winner.Namespace, winner.Name)
		return true, nil
	}
	return false, nil
}

// lookAtRivals makes the claims be looked at that have the same device by a
// weaker right.
func (c *Controller) lookAtRivals(claim *resourceapi.ResourceClaim, pool, device string) {
	for _, rival := range c.claims.ofPool(pool) {
		if rival.UID != claim.UID && slices.Contains(devicesIn(rival, c.DriverName, pool), device) {
			c.enqueue(Request{NamespacedName: keyOf(rival)})
		}
	}
}

// stronger returns the claim because of which this one cannot keep what it has
// in the pool; nil if it can.
func (c *Controller) stronger(claim *resourceapi.ResourceClaim, poolName string) *resourceapi.ResourceClaim {
	rivals := c.claims.ofPool(poolName)
	if len(rivals) < 2 {
		return nil
	}
	slices.SortFunc(rivals, byRight)
	var pool *fleet.Pool
	if node := c.Fleet.View().Node(nodeOf(claim.Status.Allocation)); node != nil {
		if i := slices.IndexFunc(node.Pools, func(p *fleet.Pool) bool { return p.Name == poolName }); i >= 0 {
			pool = node.Pools[i]
		}
	}
	mine := devicesIn(claim, c.DriverName, poolName)
	var before []string // what those with a stronger right have
	for _, rival := range rivals {
		if rival.UID == claim.UID {
			return nil
		}
		theirs := devicesIn(rival, c.DriverName, poolName)
		before = append(before, theirs...)
		if slices.ContainsFunc(theirs, func(d string) bool { return slices.Contains(mine, d) }) || !fitBeside(pool, before, mine) {
			return rival
		}
	}
	return nil
}

// fitBeside tells whether the counters of a pool are enough for both. What those
// with a stronger right make of each other's counters is not held against mine.
func fitBeside(pool *fleet.Pool, theirs, mine []string) bool {
	if pool == nil {
		return true
	}
	taken := fleet.MakeSet(len(pool.Shape.Devices))
	used := map[int]bool{}
	for _, name := range theirs {
		if place, ok := pool.Shape.Place(name); ok {
			taken.Add(place)
		}
	}
	for _, name := range mine {
		if place, ok := pool.Shape.Place(name); ok {
			taken.Add(place)
			for _, use := range pool.Shape.Devices[place].Uses {
				used[use.Counter] = true
			}
		}
	}
	for counter, left := range pool.Shape.Left(taken) {
		if left < 0 && used[counter] {
			return false
		}
	}
	return true
}

// byRight sorts claims so that those whose right to their devices is stronger
// come first: those in use, then those that were first.
func byRight(a, b *resourceapi.ResourceClaim) int {
	inUse := func(c *resourceapi.ResourceClaim) int {
		if len(c.Status.ReservedFor) > 0 {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(inUse(a), inUse(b)),
		ptr.Deref(a.Status.Allocation.AllocationTimestamp, a.CreationTimestamp).Compare(ptr.Deref(b.Status.Allocation.AllocationTimestamp, b.CreationTimestamp).Time),
		cmp.Compare(a.UID, b.UID),
	)
}

func devicesIn(claim *resourceapi.ResourceClaim, driver, pool string) []string {
	var devices []string
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver == driver && result.Pool == pool && !ptr.Deref(result.AdminAccess, false) && result.ShareID == nil {
			devices = append(devices, result.Device)
		}
	}
	return devices
}
