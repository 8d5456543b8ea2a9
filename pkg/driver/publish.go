package driver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
)

// devicesPerSlice is what a slice may hold once one of its devices has a taint.
// No slice ever has more: a device that gets one must not move others to
// another slice.
const devicesPerSlice = resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures

// PoolName returns the name of the one pool that a node publishes. It has the
// driver's name in it because the scheduler of Kubernetes 1.36 counts what is
// taken by pool name alone: two drivers that named their pools after the node
// would disturb each other.
func PoolName(nodeName, driverName string) string {
	return nodeName + "/" + driverName
}

// publishedSlices returns those that the API has of this node, also of a pool that
// was called something else.
func (d *Driver) publishedSlices(ctx context.Context) ([]resourceapi.ResourceSlice, error) {
	list, err := d.options.KubeClient.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{
		FieldSelector: fields.SelectorFromSet(fields.Set{
			resourceapi.ResourceSliceSelectorDriver:   d.options.DriverName,
			resourceapi.ResourceSliceSelectorNodeName: d.options.NodeName,
		}).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list this node's ResourceSlices: %w", err)
	}
	return list.Items, nil
}

// resources returns the slices of the pool: first those with counter sets, then
// those with devices. Their order, and that of the devices in them, is the order
// in which the scheduler tries devices. A device with problems keeps its place,
// tainted.
func resources(name string, content pool, kept features) resourceslice.DriverResources {
	var all []resourceslice.Slice
	if kept.counters {
		for some := range slices.Chunk(content.counters, resourceapi.ResourceSliceMaxCounterSets) {
			all = append(all, resourceslice.Slice{SharedCounters: some})
		}
	}
	absent := leftOut(content.devices, kept)
	for some := range slices.Chunk(content.devices, devicesPerSlice) {
		var s resourceslice.Slice
		for _, d := range some {
			if absent[d.Name] {
				continue
			}
			allocator := content.allocators[d.Name]
			published := resourceapi.Device{Name: d.Name, Attributes: d.attributes(allocator), Capacity: d.Capacity, Taints: d.taints(allocator, content.ruled[d.Name])}
			if kept.counters {
				published.ConsumesCounters = d.Consumes
			}
			s.Devices = append(s.Devices, published)
		}
		all = append(all, s)
	}
	// A pool without slices, unlike no pool at all, has those of an earlier
	// instance removed at once.
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{name: {Slices: all}}}
}

// leftOut names the devices that are not published because the API server would
// drop what keeps the scheduler from giving them away.
func leftOut(devices []owned, kept features) map[string]bool {
	absent := map[string]bool{}
	for _, d := range devices {
		if (len(d.problems) == 0 || kept.taints) && (!d.isComposite() || kept.counters) {
			continue
		}
		absent[d.Name] = true
		if d.held { // by a claim of which the slices no longer tell
			for _, part := range d.parts {
				absent[part.Name] = true
			}
		}
	}
	return absent
}

// attributes are the device's, and who gives it to claims if that is not
// kube-scheduler.
func (d owned) attributes(allocator managed.Allocator) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	if allocator != managed.Controller {
		return d.Attributes
	}
	all := maps.Clone(d.Attributes)
	if all == nil {
		all = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}
	}
	all[device.AttributeAllocator] = resourceapi.DeviceAttribute{StringValue: ptr.To(device.AllocatorController)}
	return all
}

// taints returns the one that keeps kube-scheduler off, first, so that there is
// always room for it, one for each of the device's problems, and those of rules
// of its parts. Problems differ in their values only, so that one toleration of
// the key covers all.
//
// A taint without a time gets that of the same taint in the API, if there is
// one, or the present one.
func (d owned) taints(allocator managed.Allocator, ruled []resourceapi.DeviceTaint) []resourceapi.DeviceTaint {
	taints := managedTaints(allocator)
	for _, p := range d.problems {
		taint := resourceapi.DeviceTaint{
			Key: v1alpha1.TaintUnhealthy, Value: p.Reason, Effect: resourceapi.DeviceTaintEffectNoSchedule,
		}
		if !p.since.IsZero() {
			since := metav1.NewTime(p.since).Rfc3339Copy() // what the API keeps of it
			taint.TimeAdded = &since
		}
		taints = append(taints, taint)
	}
	taints = append(taints, ruled...)
	return taints[:min(len(taints), resourceapi.DeviceTaintsMaxLength)]
}
