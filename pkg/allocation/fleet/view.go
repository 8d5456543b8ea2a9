package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// View is what a fleet knew at one moment. It never changes.
type View struct {
	nodes   []*Node
	classes map[string]*resourceapi.DeviceClass
}

// Node is a node of the cluster, with what it has to give. It never changes.
type Node struct {
	Name string
	// Object has the node's name, labels, taints, and whether it is
	// unschedulable, and nothing else.
	Object *corev1.Node
	// Pools are those of our driver that can be used now. Most nodes have one,
	// some none.
	Pools []*Pool
	// Unusable tells for each other pool of our driver why it cannot be used.
	Unusable []string

	key string
}

// Usage counts the devices of a node that are of one kind.
type Usage struct {
	Kind device.Kind
	// Managed tells whether they are those that this controller gives to claims,
	// or the others.
	Managed bool
	// Total is all of them, Taken those that a claim has, Free those that
	// nobody has and for which enough counters are left. The rest is neither: a
	// claim has something that they are made of. Unhealthy are those of Total
	// that have a taint.
	Total, Taken, Free, Unhealthy int
}

// Nodes are all nodes of the cluster in the order of their names. They must not
// be changed.
func (v *View) Nodes() []*Node { return v.nodes }

// Node returns the node of that name, or nil.
func (v *View) Node(name string) *Node {
	if i, ok := v.find(name); ok {
		return v.nodes[i]
	}
	return nil
}

func (v *View) find(name string) (int, bool) {
	return slices.BinarySearchFunc(v.nodes, name, func(n *Node, name string) int { return cmp.Compare(n.Name, name) })
}

// set puts a node in place of the one with the name, or takes it out if it is
// nil.
func (v *View) set(name string, n *Node) {
	i, there := v.find(name)
	switch {
	case n == nil && there:
		v.nodes = slices.Delete(v.nodes, i, i+1)
	case n != nil && there:
		v.nodes[i] = n
	case n != nil:
		v.nodes = slices.Insert(v.nodes, i, n)
	}
}

func (v *View) withClasses(classes map[string]*resourceapi.DeviceClass) *View {
	return &View{nodes: v.nodes, classes: classes}
}

// Get returns the DeviceClass of that name, or an error for users.
func (v *View) Get(name string) (*resourceapi.DeviceClass, error) {
	if c := v.classes[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("there is no DeviceClass %q", name)
}

// List returns all DeviceClasses in the order of their names.
func (v *View) List() ([]*resourceapi.DeviceClass, error) {
	var all []*resourceapi.DeviceClass
	for _, name := range slices.Sorted(maps.Keys(v.classes)) {
		all = append(all, v.classes[name])
	}
	return all, nil
}

// Key is the same for nodes that have the same to give: pools of the same
// [Shape] of which the same is taken.
func (n *Node) Key() string { return n.key }

func (n *Node) settle() {
	var key []byte
	for _, p := range n.Pools {
		key = append(key, p.key...)
		key = append(key, '/')
	}
	n.key = string(key)
}

// Usage counts the node's devices by kind, and by who gives them.
func (n *Node) Usage() []Usage {
	var all []Usage
	for _, p := range n.Pools {
		for i := range p.Shape.Devices {
			d := &p.Shape.Devices[i]
			at := slices.IndexFunc(all, func(u Usage) bool { return u.Kind == d.Kind && u.Managed == d.Managed })
			if at < 0 {
				at, all = len(all), append(all, Usage{Kind: d.Kind, Managed: d.Managed})
			}
			u := &all[at]
			u.Total++
			if slices.ContainsFunc(d.Taints, KeepsOut) {
				u.Unhealthy++
			}
			switch {
			case p.Taken.Has(i):
				u.Taken++
			case p.Free.Has(i):
				u.Free++
			}
		}
	}
	return all
}

// Any tells whether there is such a device. Machines that are built alike are
// looked at once.
func (v *View) Any(is func(*Device) bool) bool {
	seen := map[*Shape]bool{}
	for _, n := range v.nodes {
		for _, p := range n.Pools {
			if seen[p.Shape] {
				continue
			}
			seen[p.Shape] = true
			for i := range p.Shape.Devices {
				if is(&p.Shape.Devices[i]) {
					return true
				}
			}
		}
	}
	return false
}

// AnyManaged tells whether this controller gives away any device.
func (v *View) AnyManaged() bool {
	return v.Any(func(d *Device) bool { return d.Managed })
}
