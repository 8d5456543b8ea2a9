package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// counter counts for one claim. Machines that are built alike are looked at
// once.
type counter struct {
	analyst *Analyst
	known   map[matchKey]matches
}

type matchKey struct {
	shape *fleet.Shape
	pool  *fleet.Pool // nil if all pools of the shape give the same
	of    string
}

// matches are the devices that the class selects, and those that are left after
// each selector.
type matches struct {
	class fleet.Set
	after []fleet.Set
	// failed is the selector that failed, and why.
	failed string
}

// count fills in the numbers of each request.
func (a *Analyst) count(ctx context.Context, q *question, p *places) ([]*tally, error) {
	c := &counter{analyst: a, known: map[matchKey]matches{}}
	tallies := requests(q.claim)
	for _, t := range tallies {
		class, err := q.view.Get(t.class)
		if err != nil {
			t.trouble = t.noClass()
			continue
		}
		meaning := a.classes.Read(class)
		t.kind = meaning.Kind
		if t.foreign = !meaning.Ours; t.foreign {
			continue
		}
		t.after = make([]int, len(t.selectors))
		for _, node := range p.fitting {
			if ctx.Err() != nil {
				return nil, errLate
			}
			c.add(ctx, t, class, node, q.managed)
		}
	}
	return tallies, nil
}

func (c *counter) add(ctx context.Context, t *tally, class *resourceapi.DeviceClass, node *fleet.Node, managed bool) {
	var left []fleet.Set
	for _, pool := range node.Pools {
		m := c.match(ctx, t, class, pool)
		switch {
		case m.failed == "":
		case managed: // the controller leaves such devices out
			t.failed = cmp.Or(t.failed, m.failed)
		default: // kube-scheduler gives up
			t.trouble = cmp.Or(t.trouble, fmt.Sprintf("%s: %s. Such a claim is not allocated at all: make a new one whose selector asks first whether the attribute is there.", t.title(), m.failed))
		}
		t.ofClass += m.class.Len()
		last := m.class
		for i, set := range m.after {
			t.after[i] += set.Len()
			last = set
		}
		left = append(left, last)
	}
	t.add(node, managed, left)
}

func (c *counter) match(ctx context.Context, t *tally, class *resourceapi.DeviceClass, pool *fleet.Pool) matches {
	key := matchKey{shape: pool.Shape, of: t.name}
	if asksOwn(class.Spec.Selectors) || asksOwn(t.selectors) {
		key.pool = pool
	}
	if m, ok := c.known[key]; ok {
		return m
	}
	all := fleet.MakeSet(len(pool.Shape.Devices))
	for d := range pool.Shape.Devices {
		all.Add(d)
	}
	var m matches
	// An error of a class means the same to the user as one of his own.
	m.class, m.failed = c.filter(ctx, pool, all, class.Spec.Selectors, "of class "+class.Name)
	last := m.class
	for i := range t.selectors {
		set, failed := c.filter(ctx, pool, last, t.selectors[i:i+1], fmt.Sprint(i+1))
		if m.failed == "" {
			m.failed = failed
		}
		m.after, last = append(m.after, set), set
	}
	c.known[key] = m
	return m
}

// asksOwn tells whether a selector may ask for an attribute in which machines of
// one shape differ.
func asksOwn(selectors []resourceapi.DeviceSelector) bool {
	return slices.ContainsFunc(selectors, func(s resourceapi.DeviceSelector) bool {
		return slices.ContainsFunc(fleet.OwnAttributes(), func(name string) bool {
			return strings.Contains(strings.ToLower(expression(s)), strings.ToLower(name))
		})
	})
}

// filter returns those devices that all selectors match, and what failed.
func (c *counter) filter(ctx context.Context, pool *fleet.Pool, devices fleet.Set, selectors []resourceapi.DeviceSelector, which string) (fleet.Set, string) {
	left, failed := fleet.MakeSet(len(pool.Shape.Devices)), ""
	for d := range devices.All() {
		if ok, err := c.matches(ctx, pool.Device(d), selectors); err != nil {
			failed = fmt.Sprintf("selector %s fails for device %s: %v", which, pool.Shape.Devices[d].Name, err)
		} else if ok {
			left.Add(d)
		}
	}
	return left, failed
}

func (c *counter) matches(ctx context.Context, d resourceapi.Device, selectors []resourceapi.DeviceSelector) (bool, error) {
	input := cel.Device{Driver: c.analyst.driver, AllowMultipleAllocations: d.AllowMultipleAllocations, Attributes: d.Attributes, Capacity: d.Capacity}
	for _, s := range selectors {
		if s.CEL == nil {
			return false, nil
		}
		compiled := c.analyst.classes.Expressions().GetOrCompile(s.CEL.Expression)
		if compiled.Error != nil {
			return false, fmt.Errorf("%s does not compile: %s", brief(s.CEL.Expression), compiled.Error.Detail)
		}
		ok, _, err := compiled.DeviceMatches(ctx, input)
		if err != nil {
			return false, fmt.Errorf("%s: %w", brief(s.CEL.Expression), err)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}
