package pairs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// gpus is how many a DGX has, and so how many pairs.
const gpus = 8

// Values of the attribute type.
const (
	typeGPU  = "gpu"
	typeVF   = "vf"
	typePair = "gpu-vf"
)

const rootAttribute = "resource.kubernetes.io/pcieRoot"

// machine is what the driver publishes of a node.
type machine struct {
	node   string
	slices []*resourceapi.ResourceSlice
}

// readMachine returns what the driver publishes of the one node, as soon as that
// is complete.
func readMachine(ctx context.Context, cluster *harness.Cluster) (*machine, error) {
	var m *machine
	var incomplete error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		found, err := cluster.Slices(ctx)
		if err != nil {
			return false, err
		}
		m, incomplete = newMachine(found)
		return incomplete == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what the driver publishes: %w", errors.Join(err, incomplete))
	}
	return m, nil
}

// newMachine returns an error if slices are not all of a whole DGX.
func newMachine(found []resourceapi.ResourceSlice) (*machine, error) {
	if len(found) == 0 {
		return nil, errors.New("there is no slice")
	}
	m := &machine{node: ptr.Deref(found[0].Spec.NodeName, "")}
	for i := range found {
		spec := found[i].Spec
		if spec.Pool != found[0].Spec.Pool || int(spec.Pool.ResourceSliceCount) != len(found) {
			return nil, fmt.Errorf("slice %s is one of %d in generation %d of pool %s, and there are %d slices",
				found[i].Name, spec.Pool.ResourceSliceCount, spec.Pool.Generation, spec.Pool.Name, len(found))
		}
		for _, d := range spec.Devices {
			if len(d.Taints) > 0 {
				return nil, fmt.Errorf("device %s has the taint %s: %s", d.Name, d.Taints[0].Key, d.Taints[0].Value)
			}
		}
		m.slices = append(m.slices, &found[i])
	}
	for _, kind := range []string{typeGPU, typePair} {
		if n := len(m.devices(kind)); n != gpus {
			return nil, fmt.Errorf("there are %d devices of type %s, want %d", n, kind, gpus)
		}
	}
	return m, nil
}

// devices returns the devices of a type, in the order of the slices.
func (m *machine) devices(kind string) []resourceapi.Device {
	var devices []resourceapi.Device
	for _, slice := range m.slices {
		for _, d := range slice.Spec.Devices {
			if text(d, "type") == kind {
				devices = append(devices, d)
			}
		}
	}
	return devices
}

// text returns a device's attribute, or an empty string.
func text(d resourceapi.Device, name resourceapi.QualifiedName) string {
	return ptr.Deref(d.Attributes[name].StringValue, "")
}

// String tells what is published.
func (m *machine) String() string {
	sets, counters := 0, 0
	for _, slice := range m.slices {
		for _, set := range slice.Spec.SharedCounters {
			sets, counters = sets+1, counters+len(set.Counters)
		}
	}
	return fmt.Sprintf("Each node publishes %d GPUs, %d VFs, %d composites, and %d counters in %d sets, in %d slices.",
		len(m.devices(typeGPU)), len(m.devices(typeVF)), len(m.devices(typePair)), counters, sets, len(m.slices))
}

// as returns the slices of another node that is just like this one.
func (m *machine) as(node string) []*resourceapi.ResourceSlice {
	var copies []*resourceapi.ResourceSlice
	for _, slice := range m.slices {
		c := &resourceapi.ResourceSlice{Spec: *slice.Spec.DeepCopy()}
		// The names tell the order of the slices.
		c.Name = strings.Replace(slice.Name, m.node, node, 1)
		c.Spec.NodeName = &node
		c.Spec.Pool.Name = driver.PoolName(node, slice.Spec.Driver)
		copies = append(copies, c)
	}
	return copies
}

// ids names devices of a node as the allocator does.
func ids(node string, devices []resourceapi.Device) sets.Set[structured.DeviceID] {
	named := sets.New[structured.DeviceID]()
	for _, d := range devices {
		named.Insert(structured.MakeDeviceID(harness.DriverName, driver.PoolName(node, harness.DriverName), d.Name))
	}
	return named
}

// nicOfFirstGPU returns all VFs of the NIC that is beside the GPU that is tried
// first.
func (m *machine) nicOfFirstGPU() []resourceapi.Device {
	root := text(m.devices(typeGPU)[0], rootAttribute)
	var vfs []resourceapi.Device
	for _, vf := range m.devices(typeVF) {
		if text(vf, rootAttribute) == root {
			vfs = append(vfs, vf)
		}
	}
	return vfs
}

func nodeNamed(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
