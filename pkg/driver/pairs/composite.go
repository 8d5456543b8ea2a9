package pairs

import (
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// AttributeVFAddress is the PCI address of a composite's VF. That of the GPU has
// the standard name.
const AttributeVFAddress resourceapi.QualifiedName = "vfPCIBusID"

// counterVF counts the VF of a pair in the set of its GPU.
const counterVF = "vf"

// maxAttributes is what the API allows of attributes and capacities together,
// less one for [device.AttributeAllocator].
const maxAttributes = resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice - 1

func compositeName(gpu string) string { return gpu + "-vf" }

// composite returns the device that is a GPU and a VF.
func composite(gpu, vf device.Device, p *Pair) Device {
	d := Device{
		Device: device.Device{
			Name:       p.Name,
			Kind:       device.KindGPUVF,
			Occupies:   slices.Concat(gpu.Occupies, vf.Occupies),
			Attributes: attributes(gpu, vf, p),
			Capacity:   gpu.Capacity,
			Problems:   slices.Concat(gpu.Problems, vf.Problems),
		},
		Parts: []string{gpu.Name, vf.Name},
		Held:  p.held,
	}
	for _, c := range gpu.Consumes {
		if c.CounterSet == p.set {
			c = consumption(p.set, c.Counters)
		}
		d.Consumes = append(d.Consumes, c)
	}
	return d
}

// attributes are those of the GPU, and those of the VF for which the GPU has no
// value of its own. What would be too many is left out from the VF's, since one
// device with too many makes the API server refuse them all.
func attributes(gpu, vf device.Device, p *Pair) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	all := maps.Clone(gpu.Attributes)
	if all == nil {
		all = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}
	}
	all[device.AttributeType] = resourceapi.DeviceAttribute{StringValue: ptr.To(string(device.KindGPUVF))}
	all[device.AttributeAlignment] = resourceapi.DeviceAttribute{StringValue: ptr.To(p.Relation.String())}
	if address, ok := vf.Attributes[deviceattribute.StandardDeviceAttributePCIBusID]; ok {
		all[AttributeVFAddress] = address
	}
	standard := []resourceapi.QualifiedName{
		deviceattribute.StandardDeviceAttributePCIBusID, deviceattribute.StandardDeviceAttributePCIeRoot, deviceattribute.StandardDeviceAttributeNUMANode,
	}
	for _, name := range slices.Sorted(maps.Keys(vf.Attributes)) {
		// Where the GPU has no NUMA node, that of the VF would be a lie.
		if _, has := all[name]; has || slices.Contains(standard, name) || len(all)+len(gpu.Capacity) == maxAttributes {
			continue
		}
		all[name] = vf.Attributes[name]
	}
	return all
}

// consumption is what a device takes of a pair's set: the VF, and some more.
func consumption(set string, more map[string]resourceapi.Counter) resourceapi.DeviceCounterConsumption {
	return resourceapi.DeviceCounterConsumption{CounterSet: set, Counters: addVF(more)}
}

// withVF returns a GPU's set with the VF of its pair.
func withVF(set resourceapi.CounterSet) resourceapi.CounterSet {
	set.Counters = addVF(set.Counters)
	return set
}

func addVF(counters map[string]resourceapi.Counter) map[string]resourceapi.Counter {
	all := map[string]resourceapi.Counter{counterVF: {Value: *resource.NewQuantity(1, resource.DecimalSI)}}
	maps.Copy(all, counters)
	return all
}
