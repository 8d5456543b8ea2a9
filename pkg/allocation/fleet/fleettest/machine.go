package fleettest

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Driver is the name of the driver of all that is made here.
const Driver = "eks-hybrid-dra"

// Machine says what a machine is like. The zero value has nothing.
type Machine struct {
	Node string
	// GPUs each have a NIC beside them with VFs VFs, of which the last is the
	// GPU's partner. Half of them are on each of two NUMA nodes.
	GPUs, VFs int
	// Managed tells that the controller gives the devices to claims.
	Managed bool
	// Sick are the names of devices that have the taint of unhealthy ones.
	Sick []string
	// Generation is that of the pool.
	Generation int64
}

// DGX is a machine of 8 GPUs, 8 composites and 64 VFs, all managed.
func DGX(node string) Machine { return Machine{Node: node, GPUs: 8, VFs: 8, Managed: true} }

// Pool is the name of the machine's pool.
func (m Machine) Pool() string { return m.Node + "/" + Driver }

// Object is the machine's node.
func (m Machine) Object(labels map[string]string) *corev1.Node {
	all := map[string]string{"kubernetes.io/hostname": m.Node}
	for key, value := range labels {
		all[key] = value
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Node, UID: types.UID("uid-of-" + m.Node), Labels: all}}
}

// Slices are what the machine publishes.
func (m Machine) Slices() []*resourceapi.ResourceSlice {
	var specs []resourceapi.ResourceSliceSpec
	var sets []resourceapi.CounterSet
	for i := range m.GPUs {
		sets = append(sets, resourceapi.CounterSet{Name: gpuName(i), Counters: m.counters(2, 2)})
	}
	for some := range slices.Chunk(sets, resourceapi.ResourceSliceMaxCounterSets) {
		specs = append(specs, resourceapi.ResourceSliceSpec{SharedCounters: some})
	}
	for some := range slices.Chunk(m.devices(), resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures) {
		specs = append(specs, resourceapi.ResourceSliceSpec{Devices: some})
	}
	var all []*resourceapi.ResourceSlice
	for i, spec := range specs {
		spec.Driver, spec.NodeName = Driver, &m.Node
		spec.Pool = resourceapi.ResourcePool{Name: m.Pool(), Generation: max(1, m.Generation), ResourceSliceCount: int64(len(specs))}
		all = append(all, &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%04x-%s-%s-%d", i, Driver, m.Node, m.Generation), UID: types.UID(fmt.Sprint(m.Node, i))},
			Spec:       spec,
		})
	}
	return all
}

// devices are in the plugin's order: GPUs, VFs without partner, composites, VFs
// with one.
func (m Machine) devices() []resourceapi.Device {
	var gpus, free, composites, paired []resourceapi.Device
	for i := range m.GPUs {
		gpus = append(gpus, m.device(gpuName(i), device.KindGPU, i, m.gpuAttributes(i), m.counters(1, 0)))
		for vf := range m.VFs {
			var uses map[string]resourceapi.Counter
			if vf == m.VFs-1 {
				uses = map[string]resourceapi.Counter{"vf": counter(1)}
			}
			d := m.device(vfName(i, vf), device.KindVF, i, m.vfAttributes(i, vf), uses)
			if uses == nil {
				free = append(free, d)
			} else {
				paired = append(paired, d)
			}
		}
		if m.VFs > 0 {
			attributes := m.vfAttributes(i, m.VFs-1)
			for name, value := range m.gpuAttributes(i) {
				attributes[name] = value
			}
			attributes["alignment"] = text("PIX")
			composites = append(composites, m.device(gpuName(i)+"-vf", device.KindGPUVF, i, attributes, m.counters(2, 2)))
		}
	}
	return slices.Concat(gpus, free, composites, paired)
}

func (m Machine) device(name string, kind device.Kind, i int, attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute, uses map[string]resourceapi.Counter) resourceapi.Device {
	d := resourceapi.Device{Name: name, Attributes: attributes}
	attributes[device.AttributeType] = text(string(kind))
	attributes["resource.kubernetes.io/pcieRoot"] = text(fmt.Sprintf("pci0000:%02x", 0x15+8*i))
	attributes["resource.kubernetes.io/numaNode"] = number(2 * i / max(1, m.GPUs))
	if kind != device.KindVF {
		d.Capacity = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{device.CapacityMemory: {Value: resource.MustParse("80Gi")}}
	}
	if uses != nil {
		d.ConsumesCounters = []resourceapi.DeviceCounterConsumption{{CounterSet: gpuName(i), Counters: uses}}
	}
	if m.Managed {
		attributes[device.AttributeAllocator] = text(device.AllocatorController)
		d.Taints = append(d.Taints, resourceapi.DeviceTaint{
			Key: v1alpha1.TaintManaged, Value: v1alpha1.ManagedByController, Effect: resourceapi.DeviceTaintEffectNoSchedule,
			TimeAdded: ptr.To(metav1.Now()),
		})
	}
	if slices.Contains(m.Sick, name) {
		d.Taints = append(d.Taints, resourceapi.DeviceTaint{
			Key: v1alpha1.TaintUnhealthy, Value: "LinkDown", Effect: resourceapi.DeviceTaintEffectNoSchedule, TimeAdded: ptr.To(metav1.Now()),
		})
	}
	return d
}

func (m Machine) gpuAttributes(i int) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	return map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		"uuid":                            text(fmt.Sprintf("GPU-%s-%d", m.Node, i)),
		"productName":                     text("NVIDIA H100 80GB HBM3"),
		"brand":                           text("Nvidia"),
		"architecture":                    text("Hopper"),
		"cudaComputeCapability":           {VersionValue: ptr.To("9.0.0")},
		"index":                           number(i),
		"driverVersion":                   {VersionValue: ptr.To("580.95.5")},
		"cudaDriverVersion":               {VersionValue: ptr.To("13.0.0")},
		"resource.kubernetes.io/pciBusID": text(fmt.Sprintf("0000:%02x:00.0", 0x1b+8*i)),
	}
}

func (m Machine) vfAttributes(i, vf int) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	return map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		"pfName":                          text("ibp" + strconv.Itoa(24+i) + "s0"),
		"pfPCIBusID":                      text(fmt.Sprintf("0000:%02x:00.0", 0x18+8*i)),
		"vfIndex":                         number(vf),
		"rdma":                            {BoolValue: ptr.To(true)},
		"rdmaDevice":                      text(fmt.Sprintf("mlx5_%d", i*m.VFs+vf)),
		"vendor":                          text("15b3"),
		"device":                          text("101e"),
		"linkType":                        text("InfiniBand"),
		"driver":                          text("mlx5_core"),
		"mtu":                             number(4092),
		"linkSpeedMbps":                   number(400000),
		"resource.kubernetes.io/pciBusID": text(fmt.Sprintf("0000:%02x:00.%d", 0x18+8*i, vf+1)),
	}
}

// counters are those of a GPU, so many of each place and so many of the VF.
func (m Machine) counters(each, vf int64) map[string]resourceapi.Counter {
	all := map[string]resourceapi.Counter{"media": counter(each)}
	for i := range 8 {
		all["memory-slice-"+strconv.Itoa(i)] = counter(each)
	}
	if vf > 0 && m.VFs > 0 {
		all["vf"] = counter(vf)
	}
	return all
}

func gpuName(i int) string    { return "gpu-" + strconv.Itoa(i) }
func vfName(i, vf int) string { return fmt.Sprintf("vf-%d-%d", i, vf) }

func counter(n int64) resourceapi.Counter {
	return resourceapi.Counter{Value: *resource.NewQuantity(n, resource.DecimalSI)}
}

func text(s string) resourceapi.DeviceAttribute {
	return resourceapi.DeviceAttribute{StringValue: &s}
}

func number(n int) resourceapi.DeviceAttribute {
	return resourceapi.DeviceAttribute{IntValue: ptr.To(int64(n))}
}
