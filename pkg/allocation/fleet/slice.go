package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// slice is what is kept of a ResourceSlice.
type slice struct {
	name, version    string
	node, pool       string
	generation, want int64
	// published is what the slice has, part that with what DeviceTaintRules add.
	published, part *part
	own             []ownAttribute
}

// ownAttribute is an attribute of a device that no other machine has alike.
type ownAttribute struct {
	device string
	name   resourceapi.QualifiedName
	value  string
}

// isOwn tells which attributes are kept apart from what machines have in
// common. Any other attribute may differ, too; then less is shared.
func isOwn(id string) bool { return id == "uuid" || id == "parentUUID" }

// attributes reads those of one driver's devices.
type attributes struct{ driver string }

func (a attributes) get(d *resourceapi.Device, name resourceapi.QualifiedName) resourceapi.DeviceAttribute {
	if value, ok := d.Attributes[name]; ok {
		return value
	}
	return d.Attributes[resourceapi.QualifiedName(a.driver)+"/"+name]
}

func (a attributes) text(d *resourceapi.Device, name resourceapi.QualifiedName) string {
	return ptr.Deref(a.get(d, name).StringValue, "")
}

// id is an attribute's name without the domain, if that is the driver's.
func (a attributes) id(name resourceapi.QualifiedName) string {
	return strings.TrimPrefix(string(name), a.driver+"/")
}

// split returns a device without what is its own, and that.
func (a attributes) split(d *resourceapi.Device) (resourceapi.Device, []ownAttribute) {
	common := *d
	common.Attributes = maps.Clone(d.Attributes)
	var own []ownAttribute
	for name, value := range d.Attributes {
		if value.StringValue != nil && isOwn(a.id(name)) {
			own = append(own, ownAttribute{device: strings.Clone(d.Name), name: name, value: strings.Clone(*value.StringValue)})
			delete(common.Attributes, name)
		}
	}
	common.Taints = nil
	for _, taint := range d.Taints {
		if taint.Key == v1alpha1.TaintManaged && taint.Value == v1alpha1.ManagedByController {
			continue
		}
		taint.TimeAdded = nil
		common.Taints = append(common.Taints, taint)
	}
	return common, own
}

// isManaged tells whether the controller gives the device to claims now.
func (a attributes) isManaged(d *resourceapi.Device) bool {
	return a.text(d, device.AttributeAllocator) == device.AllocatorController &&
		slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool {
			return t.Key == v1alpha1.TaintManaged && t.Value == v1alpha1.ManagedByController
		}) &&
		!slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool {
			return t.Key == v1alpha1.TaintManaged && t.Value != v1alpha1.ManagedByController
		})
}

func (a attributes) device(d *resourceapi.Device, common resourceapi.Device) Device {
	out := Device{
		Name: common.Name, Taints: common.Taints,
		Kind:      device.Kind(a.text(d, device.AttributeType)),
		NUMA:      ptr.Deref(d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue, -1),
		Root:      ptr.Deref(d.Attributes[deviceattribute.StandardDeviceAttributePCIeRoot].StringValue, ""),
		Alignment: a.text(d, device.AttributeAlignment),
		Managed:   a.isManaged(d),
		Several:   ptr.Deref(d.AllowMultipleAllocations, false),
		api:       common,
	}
	return out
}

// newPart reads a slice. It returns the part with its key, which is the same for
// equal content, and what is the machine's own.
func newPart(driver string, spec *resourceapi.ResourceSliceSpec) (*part, []ownAttribute) {
	a := attributes{driver: driver}
	p := &part{sets: spec.SharedCounters}
	var own []ownAttribute
	for i := range spec.Devices {
		d := &spec.Devices[i]
		common, more := a.split(d)
		own = append(own, more...)
		p.devices = append(p.devices, a.device(d, common))
		p.consumes = append(p.consumes, d.ConsumesCounters)
	}
	p.key = p.sum()
	return p, own
}

// sum is the key of what the part has.
func (p *part) sum() [sha256.Size]byte {
	var content encoder
	for i := range p.devices {
		content.device(&p.devices[i].api)
		content.bool(p.devices[i].Managed)
	}
	content.mark('|')
	for _, set := range p.sets {
		content.text(set.Name)
		content.counters(set.Counters)
	}
	return sha256.Sum256(content.bytes)
}

// encoder writes what devices are made of so that equal content gives equal
// bytes, and different content different ones.
type encoder struct{ bytes []byte }

func (e *encoder) mark(b byte)   { e.bytes = append(e.bytes, b) }
func (e *encoder) number(n int)  { e.bytes = binary.AppendVarint(e.bytes, int64(n)) }
func (e *encoder) text(s string) { e.number(len(s)); e.bytes = append(e.bytes, s...) }
func (e *encoder) bool(b bool)   { e.text(map[bool]string{true: "t", false: "f"}[b]) }

func (e *encoder) device(d *resourceapi.Device) {
	e.text(d.Name)
	e.number(len(d.Attributes))
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		e.text(string(name))
		e.attribute(d.Attributes[name])
	}
	e.number(len(d.Capacity))
	for _, name := range slices.Sorted(maps.Keys(d.Capacity)) {
		e.text(string(name))
		c := d.Capacity[name]
		e.text(c.Value.String())
		if c.RequestPolicy != nil {
			e.text(c.RequestPolicy.String())
		}
	}
	e.number(len(d.ConsumesCounters))
	for _, c := range d.ConsumesCounters {
		e.text(c.CounterSet)
		e.counters(c.Counters)
	}
	e.number(len(d.Taints))
	for _, t := range d.Taints {
		e.text(t.Key)
		e.text(t.Value)
		e.text(string(t.Effect))
	}
	e.rest(d)
}

// rest is what our driver does not publish today.
func (e *encoder) rest(d *resourceapi.Device) {
	if d.NodeName == nil && d.NodeSelector == nil && d.AllNodes == nil && d.BindsToNode == nil &&
		d.BindingConditions == nil && d.BindingFailureConditions == nil && d.AllowMultipleAllocations == nil {
		e.mark('-')
		return
	}
	e.text(fmt.Sprint(ptr.Deref(d.NodeName, ""), d.NodeSelector.String(), ptr.Deref(d.AllNodes, false), ptr.Deref(d.BindsToNode, false),
		d.BindingConditions, d.BindingFailureConditions, ptr.Deref(d.AllowMultipleAllocations, false)))
}

func (e *encoder) attribute(v resourceapi.DeviceAttribute) {
	switch {
	case v.StringValue != nil:
		e.mark('s')
		e.text(*v.StringValue)
	case v.IntValue != nil:
		e.mark('i')
		e.number(int(*v.IntValue))
	case v.BoolValue != nil:
		e.mark('b')
		e.bool(*v.BoolValue)
	case v.VersionValue != nil:
		e.mark('v')
		e.text(*v.VersionValue)
	default:
		e.mark('l')
		e.text(v.String())
	}
}

func (e *encoder) counters(counters map[string]resourceapi.Counter) {
	e.number(len(counters))
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		c := counters[name]
		e.text(name)
		e.text(c.Value.String())
	}
}
