package fit

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// selector is a CEL expression of a class or a request.
type selector struct {
	expression string
	// class is the name of the class, empty for one of a request.
	class string
	// number is its place in the list, for messages.
	number int
}

func selectorsOf(class *resourceapi.DeviceClass, own []resourceapi.DeviceSelector) []selector {
	var all []selector
	for i, s := range class.Spec.Selectors {
		if s.CEL != nil {
			all = append(all, selector{expression: s.CEL.Expression, class: class.Name, number: i})
		}
	}
	for i, s := range own {
		if s.CEL != nil {
			all = append(all, selector{expression: s.CEL.Expression, number: i})
		}
	}
	return all
}

// wrap says which selector an error is about, as the allocator does.
func (s selector) wrap(what string, err error) error {
	if s.class != "" {
		return fmt.Errorf("class %s: selector #%d: CEL %s error: %w", s.class, s.number, what, err)
	}
	return fmt.Errorf("selector #%d: CEL %s error: %w", s.number, what, err)
}

// matcher evaluates selectors, and remembers the results for machines of the same
// shape. One goroutine at a time uses it.
type matcher struct {
	cel *cel.Cache
	own *ownFinder

	known map[matchKey]matched
}

// matchKey has no pointer to the shape, which is large and would be kept beyond the
// last machine of it.
type matchKey struct {
	shape      uint64
	expression string
}

// matched is which devices of a shape an expression matches.
type matched struct {
	devices fleet.Set
	// err is what the first device without a result said. It does not match.
	err error
}

// maxMatches bounds what is remembered: a set of two words each.
const maxMatches = 20_000

func newMatcher() *matcher {
	return &matcher{
		cel: cel.NewCache(1000, cel.Features{EnableConsumableCapacity: true}), own: newOwnFinder(),
		known: map[matchKey]matched{},
	}
}

// needsOwn tells whether the request may depend on what machines of one shape do
// not have in common.
func (m *matcher) needsOwn(r *request) bool {
	return slices.ContainsFunc(r.selectors, func(s selector) bool { return m.own.in(s.expression) })
}

// request returns the devices of a pool that match all selectors of a request,
// and what was wrong with one of those that do not. An error is about the
// request itself.
func (m *matcher) request(ctx context.Context, driver string, pool *fleet.Pool, r *request) (matched, error) {
	all := matched{devices: fleet.MakeSet(len(pool.Shape.Devices))}
	for n := range pool.Shape.Devices {
		all.devices.Add(n)
	}
	for _, s := range r.selectors {
		one, err := m.selector(ctx, driver, pool, s, all.devices)
		if err != nil {
			return all, err
		}
		all.devices = all.devices.And(one.devices)
		if all.err == nil {
			all.err = one.err
		}
	}
	return all, nil
}

// selector evaluates one selector. Where its result holds for this pool alone,
// only the given devices are looked at.
func (m *matcher) selector(ctx context.Context, driver string, pool *fleet.Pool, s selector, among fleet.Set) (matched, error) {
	if m.own.in(s.expression) {
		return m.evaluate(ctx, driver, s, among, pool.Device)
	}
	key := matchKey{pool.Shape.ID(), s.expression}
	if known, ok := m.known[key]; ok {
		return known, nil
	}
	every := fleet.MakeSet(len(pool.Shape.Devices))
	for n := range pool.Shape.Devices {
		every.Add(n)
	}
	result, err := m.evaluate(ctx, driver, s, every, pool.Shape.Common)
	if err != nil {
		return result, err
	}
	if len(m.known) >= maxMatches {
		clear(m.known)
	}
	m.known[key] = result
	return result, nil
}

func (m *matcher) evaluate(ctx context.Context, driver string, s selector, among fleet.Set, device func(int) resourceapi.Device) (matched, error) {
	result := matched{devices: make(fleet.Set, len(among))}
	program := m.cel.GetOrCompile(s.expression)
	if program.Error != nil {
		return result, s.wrap("compile", program.Error)
	}
	for n := range among.All() {
		d := device(n)
		yes, _, err := program.DeviceMatches(ctx, cel.Device{
			Driver: driver, AllowMultipleAllocations: d.AllowMultipleAllocations, Attributes: d.Attributes, Capacity: d.Capacity,
		})
		switch {
		case ctx.Err() != nil:
			return result, fmt.Errorf("evaluate selectors: %w", context.Cause(ctx))
		case err != nil && result.err == nil:
			result.err = fmt.Errorf("device %s: %w", d.Name, s.wrap("runtime", cel.EnhanceRuntimeError(err)))
		case err == nil && yes:
			result.devices.Add(n)
		}
	}
	return result, nil
}

// tolerates tells whether a request puts up with all taints of a device.
func (r *request) tolerates(d *fleet.Device) bool {
	for _, taint := range d.Taints {
		if !fleet.KeepsOut(taint) {
			continue
		}
		if !slices.ContainsFunc(r.tolerations, func(t resourceapi.DeviceToleration) bool { return resourceclaim.ToleratesTaint(t, taint) }) {
			return false
		}
	}
	return true
}

// ownFinder tells which expressions may depend on an attribute that a machine
// does not have in common with others of its shape. It is cautious: what it does
// not understand, does.
type ownFinder struct {
	access, presence, harmless, device *regexp.Regexp
	known                              map[string]bool
}

func newOwnFinder() *ownFinder {
	// Without quotes, blanks and operators in it, the text in the quotes cannot
	// be code between two other texts.
	const text = `(?:"[A-Za-z0-9._/-]+"|'[A-Za-z0-9._/-]+')`
	const attributes = `device\.attributes\[` + text + `\]`
	return &ownFinder{
		access:   regexp.MustCompile(attributes + `(?:\.\??([A-Za-z_][A-Za-z0-9_]*)(\s*\()?|\[(` + text + `)\])`),
		presence: regexp.MustCompile(`(` + text + `) in ` + attributes),
		harmless: regexp.MustCompile(`device\.(?:driver|allowMultipleAllocations|capacity\[` + text + `\])`),
		device:   regexp.MustCompile(`\bdevice\b`),
		known:    map[string]bool{},
	}
}

// in tells whether the expression may depend on such an attribute.
func (f *ownFinder) in(expression string) bool {
	own, ok := f.known[expression]
	if !ok {
		if len(f.known) >= maxMatches {
			clear(f.known)
		}
		own = f.find(expression)
		f.known[expression] = own
	}
	return own
}

func (f *ownFinder) find(expression string) bool {
	for _, pattern := range []*regexp.Regexp{f.access, f.presence} {
		for _, found := range pattern.FindAllStringSubmatch(expression, -1) {
			for _, id := range found[1:] {
				// A bracket makes it a call on all attributes, such as "exists".
				if slices.Contains(fleet.OwnAttributes(), strings.Trim(id, `"'`)) || strings.HasSuffix(id, "(") {
					return true
				}
			}
		}
		// The operator stays, so that nothing grows together.
		expression = pattern.ReplaceAllString(expression, " known ")
	}
	return f.device.MatchString(f.harmless.ReplaceAllString(expression, " known "))
}
