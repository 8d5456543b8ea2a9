package classes

import (
	"context"
	"regexp"
	"slices"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// cachedExpressions bounds how many compiled expressions are kept.
const cachedExpressions = 100

// KindMixed stands for devices of more than one kind, or of a kind that cannot
// be told.
const KindMixed = "mixed"

// Class is what a DeviceClass means for this driver. The zero value is a class
// that has nothing to do with it.
type Class struct {
	// Ours is whether the class selects devices of this driver, and not of
	// every driver.
	Ours bool
	// Managed is whether the controller, and not kube-scheduler, allocates the
	// claims of the class.
	Managed bool
	// Kind is the kind of the devices, or [KindMixed].
	Kind string
}

// Reader reads DeviceClasses. It is safe for concurrent use.
type Reader struct {
	driver   string
	named    *regexp.Regexp
	compiled *cel.Cache
	kinds    []device.Kind

	mu   sync.Mutex
	read map[string]entry // by the class's name
}

type entry struct {
	uid        types.UID
	generation int64
	managed    string
	class      Class
}

// NewReader returns a reader for the classes of a driver.
func NewReader(driver string) *Reader {
	quoted := `['"]` + regexp.QuoteMeta(driver) + `['"]`
	return &Reader{
		driver:   driver,
		named:    regexp.MustCompile(`device\.driver\s*==\s*` + quoted + `|` + quoted + `\s*==\s*device\.driver`),
		compiled: cel.NewCache(cachedExpressions, cel.Features{EnableConsumableCapacity: true}),
		kinds:    device.Kinds(),
		read:     map[string]entry{},
	}
}

// Read returns what the class means. Nil has nothing to do with the driver.
func (r *Reader) Read(c *resourceapi.DeviceClass) Class {
	if c == nil {
		return Class{}
	}
	managed := c.Labels[v1alpha1.LabelManagedClass]
	r.mu.Lock()
	known, ok := r.read[c.Name]
	r.mu.Unlock()
	if ok && known.uid == c.UID && known.generation == c.Generation && known.managed == managed && c.UID != "" {
		return known.class
	}
	class := r.try(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read[c.Name] = entry{uid: c.UID, generation: c.Generation, managed: managed, class: class}
	return class
}

// Forget drops what is known of a class that is gone.
func (r *Reader) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.read, name)
}

// Expressions returns the CEL cache, so that expressions are compiled once.
func (r *Reader) Expressions() *cel.Cache { return r.compiled }

func (r *Reader) try(c *resourceapi.DeviceClass) Class {
	var kinds []string
	for _, kind := range r.kinds {
		if r.selects(c, r.driver, string(kind)) {
			kinds = append(kinds, string(kind))
		}
	}
	// An expression may ask for an attribute that only real devices have.
	named := slices.ContainsFunc(c.Spec.Selectors, func(s resourceapi.DeviceSelector) bool {
		return s.CEL != nil && r.named.MatchString(s.CEL.Expression)
	})
	others := slices.ContainsFunc(kinds, func(kind string) bool { return r.selects(c, "another."+r.driver, kind) })
	class := Class{Ours: named || len(kinds) > 0 && !others, Kind: KindMixed}
	if !class.Ours {
		return Class{}
	}
	if len(kinds) == 1 {
		class.Kind = kinds[0]
	}
	class.Managed = c.Labels[v1alpha1.LabelManagedClass] == "true"
	return class
}

// selects tells whether the class selects a device of the kind, whoever
// allocates it.
func (r *Reader) selects(c *resourceapi.DeviceClass, driver, kind string) bool {
	// Attributes carry the driver's own domain, also where another driver
	// publishes them, so that the driver alone makes the difference.
	domain := resourceapi.QualifiedName(r.driver + "/")
	managed := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		domain + device.AttributeType:      {StringValue: &kind},
		domain + device.AttributeAllocator: {StringValue: ptr.To(device.AllocatorController)},
	}
	plain := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{domain + device.AttributeType: {StringValue: &kind}}
	for _, attributes := range []map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{plain, managed} {
		if r.matches(c, cel.Device{Driver: driver, Attributes: attributes}) {
			return true
		}
	}
	return false
}

func (r *Reader) matches(c *resourceapi.DeviceClass, d cel.Device) bool {
	for _, s := range c.Spec.Selectors {
		if s.CEL == nil {
			return false
		}
		expression := r.compiled.GetOrCompile(s.CEL.Expression)
		if expression.Error != nil {
			return false
		}
		if ok, _, err := expression.DeviceMatches(context.Background(), d); err != nil || !ok {
			return false
		}
	}
	return true
}
