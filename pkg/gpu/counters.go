package gpu

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// memorySlices is how many places for the memory of MIG devices a GPU has.
const memorySlices = 8

// counters are the parts of one GPU that its devices share: the places for the
// memory of MIG devices, and the media engines that one MIG device may have.
func counters() map[string]resourceapi.Counter {
	one := resourceapi.Counter{Value: *resource.NewQuantity(1, resource.DecimalSI)}
	all := map[string]resourceapi.Counter{"media": one}
	for i := range memorySlices {
		all[fmt.Sprintf("memory-slice-%d", i)] = one
	}
	return all
}

// counterSet is the set of one GPU. It has the name of the whole GPU's device.
func counterSet(name string) resourceapi.CounterSet {
	return resourceapi.CounterSet{Name: name, Counters: counters()}
}

// wholeGPU is what a device takes that is the GPU as a whole.
func wholeGPU(name string) []resourceapi.DeviceCounterConsumption {
	return []resourceapi.DeviceCounterConsumption{{CounterSet: name, Counters: counters()}}
}
