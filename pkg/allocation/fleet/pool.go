package fleet

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// Pool is what a node has to give, and what of it is given. It never changes.
type Pool struct {
	// Name is that in the node's slices.
	Name string
	// Shape is what the pool consists of.
	Shape *Shape
	// Taken are the devices that a claim has for itself, whoever gave them.
	Taken Set
	// Free are the devices that nobody has, and of whose counters enough is
	// left. Some of them may be managed by others, or tainted.
	Free Set
	// Shares are what claims have of devices that several may have.
	Shares []Share

	own []ownAttribute
	key string
}

// Share is a part of a device's capacity that a claim has.
type Share struct {
	// Device is the place in [Shape.Devices].
	Device   int
	ID       types.UID
	Capacity map[resourceapi.QualifiedName]resource.Quantity
}

// Key is the same for pools of which the same is built in the same way and the
// same is taken.
func (p *Pool) Key() string { return p.key }

// Device returns a device as the API has it, but without the taint that marks
// managed devices. It must not be changed.
func (p *Pool) Device(n int) resourceapi.Device {
	d := p.Shape.Devices[n].api
	cloned := false
	for _, own := range p.own {
		if own.device != d.Name {
			continue
		}
		if !cloned {
			d.Attributes, cloned = maps.Clone(d.Attributes), true
		}
		d.Attributes[own.name] = resourceapi.DeviceAttribute{StringValue: &own.value}
	}
	return d
}

// Common returns a device without the attributes that are its machine's own,
// [OwnAttributes]. It is the same for all pools of the shape.
func (s *Shape) Common(n int) resourceapi.Device { return s.Devices[n].api }

// OwnAttributes are the names of the attributes in which machines of the same
// [Shape] may differ.
func OwnAttributes() []string { return []string{"uuid", "parentUUID"} }

// pool is what the fleet knows of a pool.
type pool struct {
	name   string
	node   string
	slices map[string]*slice
	now    *Pool // nil while the pool is incomplete or contradicts itself
	// why is the reason for which there is no pool now.
	why string
}

// complete returns the slices of the newest generation in the order of their
// names, if all are there.
func (p *pool) complete() ([]*slice, bool) {
	var newest []*slice
	for _, s := range p.slices {
		switch {
		case len(newest) == 0 || s.generation == newest[0].generation:
			newest = append(newest, s)
		case s.generation > newest[0].generation:
			newest = []*slice{s}
		}
	}
	slices.SortFunc(newest, func(a, b *slice) int { return cmp.Compare(a.name, b.name) })
	return newest, len(newest) > 0 && newest[0].want == int64(len(newest))
}

// build makes the pool anew after its slices have changed.
func (f *Fleet) build(p *pool) {
	before := p.now
	p.now, p.why = nil, ""
	newest, ok := p.complete()
	if !ok {
		p.why = "its slices are being updated"
	} else if shape, err := f.shapes.of(newest); err != nil {
		p.why = "its slices contradict each other: " + err.Error()
	} else {
		p.now = &Pool{Name: p.name, Shape: shape}
		for _, s := range newest {
			p.now.own = append(p.now.own, s.own...)
		}
		f.give(p)
	}
	if before != nil {
		f.shapes.drop(before.Shape)
	}
	f.touch(p.node)
}

// give works out anew what of the pool is taken.
func (f *Fleet) give(p *pool) {
	if p.now == nil {
		return
	}
	next := *p.now
	next.Taken, next.Shares = MakeSet(len(next.Shape.Devices)), nil
	for n := range next.Shape.Devices {
		d := deviceID{p.name, next.Shape.Devices[n].Name}
		if f.taken[d] > 0 {
			next.Taken.Add(n)
		}
		for id, capacity := range f.shares[d] {
			next.Shares = append(next.Shares, Share{Device: n, ID: id, Capacity: capacity})
		}
	}
	next.settle()
	p.now = &next
}

// settle works out what follows from what is taken.
func (p *Pool) settle() {
	used := slices.Clone(p.Taken)
	for _, s := range p.Shares {
		used.Add(s.Device)
	}
	p.Free = p.Shape.free(used)
	for _, s := range p.Shares {
		p.Free.Add(s.Device) // how much is left of it is for the allocator to tell
	}
	key := binary.AppendUvarint(nil, p.Shape.id)
	for _, word := range p.Taken {
		key = binary.BigEndian.AppendUint64(key, word)
	}
	if len(p.Shares) > 0 {
		slices.SortFunc(p.Shares, func(a, b Share) int {
			return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.ID, b.ID))
		})
		key = append(key, p.Name...) // like no other
	}
	p.key = string(key)
}
