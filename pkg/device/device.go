package device

import (
	"errors"

	resourceapi "k8s.io/api/resource/v1"
)

// Kind tells what sort of thing a device is. It is published as the attribute
// "type".
type Kind string

// The kinds of devices that this driver knows.
const (
	// KindGPU is a whole GPU.
	KindGPU Kind = "gpu"
	// KindVF is an SR-IOV virtual function of a NIC.
	KindVF Kind = "vf"
	// KindGPUVF is a whole GPU together with a VF of the NIC beside it.
	KindGPUVF Kind = "gpu-vf"
)

// Kinds returns all kinds. Tests hold against it whatever names kinds one by
// one: the configuration of nodes, the DeviceClasses, the documentation.
func Kinds() []Kind { return []Kind{KindGPU, KindVF, KindGPUVF} }

// Names of the attributes and capacities that more than one family publishes, or
// that the controller reads.
// They carry no domain, which in a ResourceSlice means the driver's own.
const (
	// AttributeType is the device's [Kind].
	AttributeType resourceapi.QualifiedName = "type"
	// AttributeProductName is what the maker calls a GPU, such as "NVIDIA H200".
	AttributeProductName resourceapi.QualifiedName = "productName"
	// AttributeRDMADevice is the name of the device's RDMA device, such as
	// "mlx5_0".
	AttributeRDMADevice resourceapi.QualifiedName = "rdmaDevice"
	// AttributeAlignment is how near the parts of a composite are, as "nvidia-smi
	// topo -m" says it: PIX, PXB, PHB, NODE or SYS.
	AttributeAlignment resourceapi.QualifiedName = "alignment"
	// AttributeAllocator is who gives the device to claims. Devices without it
	// are kube-scheduler's.
	AttributeAllocator resourceapi.QualifiedName = "allocator"
	// CapacityMemory is the memory of the device in bytes.
	CapacityMemory resourceapi.QualifiedName = "memory"
)

// AllocatorController is the value of [AttributeAllocator] on devices that this
// project's controller gives to claims.
const AllocatorController = "controller"

// Device is something that a claim can be given, as it is published in a
// ResourceSlice.
type Device struct {
	// Name is the DNS label by which the pool knows the device. It depends on
	// the hardware alone, so that it is the same after every restart. No other
	// device of the node has it, of whatever family, so it begins with a word
	// of the family's own.
	Name string
	Kind Kind
	// Occupies names the physical things that this device takes up, in a form
	// that survives restarts; a PCI function by [PCIThing]. Devices that share
	// one are never prepared for two claims at once. It is never empty.
	Occupies []string
	// Attributes and Capacity are published as they are. At most 31 together: the
	// API allows 32, and [AttributeAllocator] may be added.
	Attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
	Capacity   map[resourceapi.QualifiedName]resourceapi.DeviceCapacity
	// Place is where the device sits, for devices that are better used together
	// with one beside them. Nil for others.
	Place *Place
	// Consumes is what the device takes of the counter sets in its family's
	// inventory, so that the scheduler does not give away what devices share.
	Consumes []resourceapi.DeviceCounterConsumption
	// Problems are what is wrong with the device at the moment. A device with
	// problems is published, so that those who have it learn of them, but
	// nobody new gets it. The order does not matter.
	Problems []Problem
}

// Place is where a device sits in the machine.
type Place struct {
	// PCI is the address of the device's PCI function, such as "0000:1b:00.0".
	PCI string
	// Parent is the address of the function that has made this one: for a VF its
	// PF. It is empty for functions of their own.
	Parent string
	// Index is the device's number on its parent.
	Index int
}

// Problem is a reason why a device that is there should not be given to anyone
// now. It goes as soon as its cause is gone.
type Problem struct {
	// Reason is a short CamelCase word for taints and metrics, from a small
	// fixed set, such as "LinkDown".
	Reason string
	// Message tells a person what was seen, on what, and what to do.
	Message string
}

// Inventory is what a family finds on the node in one look.
type Inventory struct {
	// Devices are those that work, in the order in which they should be
	// allocated: the scheduler takes the first that fits.
	Devices []Device
	// Counters are the sets that Devices consume. A set has as much of each
	// counter as there is; devices that together would take more are never
	// given away together.
	Counters []resourceapi.CounterSet
	// Faults are the things that are there but cannot be used. They never
	// hide the devices that work.
	Faults []Fault
}

// ErrRestart is what a family's error wraps when only a new process can see the
// hardware again, for example because a driver's library was replaced that this
// process has loaded.
var ErrRestart = errors.New("the plugin must restart to see the hardware again")

// Fault is a piece of hardware that is there but cannot be used.
type Fault struct {
	// Subject names the hardware as far as it is known, such as "GPU 3".
	Subject string
	// Reason is a short CamelCase word for metrics, from a small fixed set.
	Reason string
	// Err tells what was tried and why it failed.
	Err error
}
