package driver

import (
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// PoolName returns the name of the one pool that a node publishes. It has the
// driver's name in it because the scheduler of Kubernetes 1.36 counts what is
// taken by pool name alone: two drivers that named their pools after the node
// would disturb each other.
func PoolName(nodeName, driverName string) string {
	return nodeName + "/" + driverName
}

// resources returns the slices of the pool. Their order, and that of the
// devices in them, is the order in which the scheduler tries devices.
func resources(pool string, devices []device.Device) resourceslice.DriverResources {
	var slices []resourceslice.Slice
	for len(devices) > 0 {
		n := min(len(devices), resourceapi.ResourceSliceMaxDevices)
		var s resourceslice.Slice
		for _, d := range devices[:n] {
			s.Devices = append(s.Devices, resourceapi.Device{
				Name:       d.Name,
				Attributes: d.Attributes,
				Capacity:   d.Capacity,
			})
		}
		slices = append(slices, s)
		devices = devices[n:]
	}
	// A pool without slices, unlike no pool at all, has those of an earlier
	// instance removed at once.
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{pool: {Slices: slices}}}
}
