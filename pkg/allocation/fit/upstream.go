package fit

import (
	"context"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// features are those of kube-scheduler 1.37 as it is by default.
func features() structured.Features {
	return structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true,
		DeviceTaints: true, PartitionableDevices: true, PrioritizedList: true,
	}
}

// offer is what the allocator is shown of a node: some devices of each of its
// pools, in the order in which it is to try them.
type offer struct {
	node *fleet.Node
	// devices has for each of the node's pools the places of the devices.
	devices [][]int
	// taken has for each pool what is taken, also by claims that are planned
	// but not known to the fleet.
	taken []fleet.Set
}

// nowhere is the name of a node that there cannot be. What is on it is counted
// but not given.
const nowhere = "-"

// slices returns the offer as ResourceSlices, of our driver alone: an allocator
// that counts by pool name alone, as that of Kubernetes 1.36 does, would mix up
// what other drivers' pools of the same name have. A pool is one slice of counter
// sets, one of devices that may be given, and one of those that are taken and
// whose counters count, which is on no node.
func (o offer) slices(driver string) []*resourceapi.ResourceSlice {
	var all []*resourceapi.ResourceSlice
	for i, pool := range o.node.Pools {
		offered, taken := o.pick(i, pool)
		sets := pool.Shape.CounterSets()
		spec := resourceapi.ResourceSliceSpec{
			Driver: driver, NodeName: &o.node.Name,
			Pool: resourceapi.ResourcePool{Name: pool.Name, Generation: 1, ResourceSliceCount: 1},
		}
		if len(sets) > 0 {
			spec.Pool.ResourceSliceCount++
		}
		if len(taken) > 0 {
			spec.Pool.ResourceSliceCount++
		}
		add := func(name, node string, devices []resourceapi.Device, sets []resourceapi.CounterSet) {
			s := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
			s.Spec.NodeName, s.Spec.Devices, s.Spec.SharedCounters = &node, devices, sets
			all = append(all, s)
		}
		if len(sets) > 0 {
			add("0", o.node.Name, nil, sets)
		}
		add("1", o.node.Name, offered, nil)
		if len(taken) > 0 {
			add("2", nowhere, taken, nil)
		}
	}
	return all
}

// pick returns the devices that are offered, and those others that are taken and
// count.
func (o offer) pick(i int, pool *fleet.Pool) (offered, taken []resourceapi.Device) {
	shown := fleet.MakeSet(len(pool.Shape.Devices))
	for _, d := range o.devices[i] {
		shown.Add(d)
		offered = append(offered, pool.Device(d))
	}
	count := func(d int) {
		if !shown.Has(d) && len(pool.Shape.Devices[d].Uses) > 0 {
			shown.Add(d)
			taken = append(taken, pool.Shape.Common(d))
		}
	}
	for d := range o.taken[i].All() {
		count(d)
	}
	for _, share := range pool.Shares {
		count(share.Device)
	}
	return offered, taken
}

// allocated is what the allocator must take as given.
func (o offer) allocated(driver string) structured.AllocatedState {
	state := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for i, pool := range o.node.Pools {
		for d := range o.taken[i].All() {
			state.AllocatedDevices.Insert(structured.MakeDeviceID(driver, pool.Name, pool.Shape.Devices[d].Name))
		}
		for _, share := range pool.Shares {
			id := structured.MakeDeviceID(driver, pool.Name, pool.Shape.Devices[share.Device].Name)
			state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, ptr.To(share.ID)))
			if share.Capacity != nil {
				state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, share.Capacity))
			}
		}
	}
	return state
}

// allocate asks the allocator whether the claims can be given what is offered.
// It returns nil if not.
func (e *evaluator) allocate(ctx context.Context, view *fleet.View, o offer, claims []*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, error) {
	slicesOfNode := o.slices(e.driver)
	allocator, err := structured.NewAllocator(ctx, features(), o.allocated(e.driver), view, slicesOfNode, e.cel)
	if err != nil {
		return nil, err
	}
	results, err := allocator.Allocate(ctx, o.node.Object, claims)
	if err != nil || len(results) != len(claims) {
		return nil, err
	}
	return results, nil
}
