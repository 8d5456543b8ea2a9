package fleet

import (
	"errors"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// ErrTaken is what the error of [Fleet.Assume] wraps when another claim has got
// one of the devices, or what they share with others, in the meantime.
var ErrTaken = errors.New("given to another claim in the meantime")

// Fleet is what the controller knows of nodes, devices and what is given. It is
// safe for concurrent use. Objects that it is told of are never changed, and
// nothing of them is kept that is large.
type Fleet struct {
	driver string

	mu      sync.Mutex
	slices  map[string]*slice
	pools   map[string]*pool
	byNode  map[string]map[string]*pool
	objects map[string]*corev1.Node
	classes map[string]*resourceapi.DeviceClass
	rules   rules
	shapes  shapes

	claims  map[types.UID]*claim
	taken   map[deviceID]int
	shares  map[deviceID]map[types.UID]map[resourceapi.QualifiedName]resource.Quantity
	touched map[string]bool
	view    *View
}

// deviceID names a device of our driver.
type deviceID struct{ pool, device string }

// New returns a fleet that knows nothing yet. Slices and allocations of other
// drivers than that of the given name are not kept.
func New(driverName string) *Fleet {
	return &Fleet{
		driver:  driverName,
		slices:  map[string]*slice{},
		pools:   map[string]*pool{},
		byNode:  map[string]map[string]*pool{},
		objects: map[string]*corev1.Node{},
		classes: map[string]*resourceapi.DeviceClass{},
		rules:   rules{byName: map[string]*rule{}, byPool: map[string][]*rule{}},
		shapes:  shapes{parts: map[[32]byte]*part{}, byKey: map[string]*Shape{}},
		claims:  map[types.UID]*claim{},
		taken:   map[deviceID]int{},
		shares:  map[deviceID]map[types.UID]map[resourceapi.QualifiedName]resource.Quantity{},
		touched: map[string]bool{},
		view:    &View{classes: map[string]*resourceapi.DeviceClass{}},
	}
}

// DriverName is the driver whose devices the fleet knows.
func (f *Fleet) DriverName() string { return f.driver }

// SetSlice tells of a slice that is new or has changed. Nothing of the slice is
// kept by reference but what is common to many machines.
func (f *Fleet) SetSlice(s *resourceapi.ResourceSlice) {
	node := ptr.Deref(s.Spec.NodeName, "")
	if s.Spec.Driver != f.driver || node == "" {
		f.DeleteSlice(s.Name) // it may have been ours before
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.slices[s.Name]
	if before != nil && s.ResourceVersion != "" && before.version == s.ResourceVersion {
		return
	}
	content, own := newPart(f.driver, &s.Spec)
	next := &slice{
		name: s.Name, version: s.ResourceVersion, node: node, pool: s.Spec.Pool.Name,
		generation: s.Spec.Pool.Generation, want: s.Spec.Pool.ResourceSliceCount, published: f.shapes.keep(content), own: own,
	}
	next.part = f.shapes.keep(next.published.with(f.rules.of(next.pool)))
	f.slices[s.Name] = next
	if before != nil {
		f.shapes.dropPart(before.published)
		f.shapes.dropPart(before.part)
		if before.pool != next.pool || before.node != next.node {
			f.leave(before)
		}
	}
	f.join(next)
}

// DeleteSlice tells that there is no such slice any more.
func (f *Fleet) DeleteSlice(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.slices[name]
	if s == nil {
		return
	}
	delete(f.slices, name)
	f.shapes.dropPart(s.published)
	f.shapes.dropPart(s.part)
	f.leave(s)
}

func (f *Fleet) join(s *slice) {
	p := f.pools[s.pool]
	if p == nil {
		p = &pool{name: s.pool, slices: map[string]*slice{}}
		f.pools[s.pool] = p
	}
	if p.node != s.node { // a pool is on one node: that of its latest slice
		f.place(p, s.node)
	}
	p.slices[s.name] = s
	f.build(p)
}

func (f *Fleet) leave(s *slice) {
	p := f.pools[s.pool]
	delete(p.slices, s.name)
	f.build(p)
	if len(p.slices) == 0 {
		delete(f.pools, s.pool)
		f.place(p, "")
	}
}

// place moves a pool to a node, or away from all.
func (f *Fleet) place(p *pool, node string) {
	f.touch(p.node)
	delete(f.byNode[p.node], p.name)
	if len(f.byNode[p.node]) == 0 {
		delete(f.byNode, p.node)
	}
	p.node = node
	if node == "" {
		return
	}
	if f.byNode[node] == nil {
		f.byNode[node] = map[string]*pool{}
	}
	f.byNode[node][p.name] = p
	f.touch(node)
}

func (f *Fleet) touch(node string) {
	if node != "" {
		f.touched[node] = true
	}
}

// SetClass tells of a DeviceClass that is new or has changed.
func (f *Fleet) SetClass(c *resourceapi.DeviceClass) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.classes[c.Name] = c
	f.view = f.view.withClasses(maps.Clone(f.classes))
}

// DeleteClass tells that there is no such DeviceClass any more.
func (f *Fleet) DeleteClass(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.classes, name)
	f.view = f.view.withClasses(maps.Clone(f.classes))
}

// SetNode tells of a node that is new or has changed. Its name, labels, taints
// and whether it is unschedulable are kept. It returns whether one of them is new:
// kubelets tell much more of their nodes, and often.
func (f *Fleet) SetNode(n *corev1.Node) bool {
	kept := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, Labels: n.Labels},
		Spec:       corev1.NodeSpec{Taints: n.Spec.Taints, Unschedulable: n.Spec.Unschedulable},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.objects[n.Name]; before != nil && apiequality.Semantic.DeepEqual(before, kept) {
		return false
	}
	f.objects[n.Name] = kept
	f.touch(n.Name)
	return true
}

// DeleteNode tells that there is no such node any more.
func (f *Fleet) DeleteNode(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, name)
	f.touch(name)
}

// ManagedClass tells whether a DeviceClass of that name is there and is
// labelled as one for which this controller allocates.
func (f *Fleet) ManagedClass(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.classes[name]
	return c != nil && c.Labels[v1alpha1.LabelManagedClass] == "true"
}

// IsOurs tells whether this controller allocates the claim: all its requests,
// and each alternative of them, name managed classes. If only some do, nobody
// can allocate it, and mixed is the name of a request that does not, such as
// "gpu" or "gpu/second".
func (f *Fleet) IsOurs(c *resourceapi.ResourceClaim) (ours bool, mixed string) {
	for _, r := range c.Spec.Devices.Requests {
		for name, class := range classesOf(r) {
			if f.ManagedClass(class) {
				ours = true
			} else if mixed == "" {
				mixed = name
			}
		}
	}
	if !ours {
		return false, ""
	}
	return mixed == "", mixed
}

func classesOf(r resourceapi.DeviceRequest) func(func(name, class string) bool) {
	return func(yield func(string, string) bool) {
		if r.Exactly != nil && !yield(r.Name, r.Exactly.DeviceClassName) {
			return
		}
		for _, sub := range r.FirstAvailable {
			if !yield(r.Name+"/"+sub.Name, sub.DeviceClassName) {
				return
			}
		}
	}
}

// View returns what is known now. It is cheap: what has not changed since the
// last time is the same.
func (f *Fleet) View() *View {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.touched) == 0 {
		return f.view
	}
	next := &View{nodes: slices.Clone(f.view.nodes), classes: f.view.classes}
	for name := range f.touched {
		next.set(name, f.node(name))
	}
	clear(f.touched)
	f.view = next
	return next
}

func (f *Fleet) node(name string) *Node {
	object := f.objects[name]
	if object == nil {
		return nil // what an allocator does not know, it cannot give
	}
	n := &Node{Name: name, Object: object}
	for _, p := range slices.Sorted(maps.Keys(f.byNode[name])) {
		if p := f.byNode[name][p]; p.now != nil {
			n.Pools = append(n.Pools, p.now)
		} else {
			n.Unusable = append(n.Unusable, p.name+": "+p.why)
		}
	}
	n.settle()
	return n
}
