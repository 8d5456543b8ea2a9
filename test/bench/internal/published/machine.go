package published

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// GPUs is how many a DGX has, and so how many pairs.
const GPUs = 8

// Values of the attribute type.
const (
	TypeGPU  = "gpu"
	TypeVF   = "vf"
	TypePair = "gpu-vf"
)

// Machine is what the driver publishes of a node.
type Machine struct {
	Node   string
	Slices []*resourceapi.ResourceSlice
}

// Read returns what the driver publishes of the one node, as soon as that is
// complete.
func Read(ctx context.Context, cluster *harness.Cluster) (*Machine, error) {
	var m *Machine
	var incomplete error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		found, err := cluster.Slices(ctx)
		if err != nil {
			return false, err
		}
		m, incomplete = New(found)
		return incomplete == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what the driver publishes: %w", errors.Join(err, incomplete))
	}
	return m, nil
}

// New returns an error if slices are not all of a whole DGX.
func New(found []resourceapi.ResourceSlice) (*Machine, error) {
	if len(found) == 0 {
		return nil, errors.New("there is no slice")
	}
	m := &Machine{Node: ptr.Deref(found[0].Spec.NodeName, "")}
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
		m.Slices = append(m.Slices, &found[i])
	}
	for _, kind := range []string{TypeGPU, TypePair} {
		if n := len(m.Devices(kind)); n != GPUs {
			return nil, fmt.Errorf("there are %d devices of type %s, want %d", n, kind, GPUs)
		}
	}
	return m, nil
}

// Devices returns the devices of a type, in the order of the slices.
func (m *Machine) Devices(kind string) []resourceapi.Device {
	var devices []resourceapi.Device
	for _, slice := range m.Slices {
		for _, d := range slice.Spec.Devices {
			if Text(d, "type") == kind {
				devices = append(devices, d)
			}
		}
	}
	return devices
}

// Text returns a device's attribute, or an empty string.
func Text(d resourceapi.Device, name resourceapi.QualifiedName) string {
	return ptr.Deref(d.Attributes[name].StringValue, "")
}

// String tells what is published.
func (m *Machine) String() string {
	sets, counters := 0, 0
	for _, slice := range m.Slices {
		for _, set := range slice.Spec.SharedCounters {
			sets, counters = sets+1, counters+len(set.Counters)
		}
	}
	return fmt.Sprintf("Each node publishes %d GPUs, %d VFs, %d composites, and %d counters in %d sets, in %d slices.",
		len(m.Devices(TypeGPU)), len(m.Devices(TypeVF)), len(m.Devices(TypePair)), counters, sets, len(m.Slices))
}

// As returns the slices of another node that is just like this one.
func (m *Machine) As(node string) []*resourceapi.ResourceSlice {
	var copies []*resourceapi.ResourceSlice
	for _, slice := range m.Slices {
		c := &resourceapi.ResourceSlice{Spec: *slice.Spec.DeepCopy()}
		// The names tell the order of the slices.
		c.Name = strings.Replace(slice.Name, m.Node, node, 1)
		c.Spec.NodeName = &node
		c.Spec.Pool.Name = driver.PoolName(node, slice.Spec.Driver)
		copies = append(copies, c)
	}
	return copies
}

// Parts returns what a device has to itself: its name, and the counters of which
// two like it cannot both have what they need. Devices with a part in common
// cannot be given to two claims.
func (m *Machine) Parts(device string) []string {
	whole := map[string]resourceapi.Counter{}
	for _, slice := range m.Slices {
		for _, set := range slice.Spec.SharedCounters {
			for name, counter := range set.Counters {
				whole[set.Name+"/"+name] = counter
			}
		}
	}
	parts := []string{device}
	for _, slice := range m.Slices {
		for _, d := range slice.Spec.Devices {
			if d.Name != device {
				continue
			}
			for _, uses := range d.ConsumesCounters {
				for name, used := range uses.Counters {
					part := uses.CounterSet + "/" + name
					if all := whole[part]; 2*used.Value.Value() > all.Value.Value() {
						parts = append(parts, part)
					}
				}
			}
		}
	}
	return parts
}
