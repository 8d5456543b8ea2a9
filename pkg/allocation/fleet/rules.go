package fleet

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
)

// rule is what is kept of a DeviceTaintRule that may select devices of ours.
type rule struct {
	name string
	// pool is empty where the rule is for devices of any pool, device where it
	// is for all of them.
	pool, device string
	taint        resourceapi.DeviceTaint
}

// rules are the DeviceTaintRules of the cluster, as far as they are for us.
type rules struct {
	byName map[string]*rule
	byPool map[string][]*rule
}

// of returns the rules for a pool, in an order that depends on nothing else.
func (r *rules) of(pool string) []*rule {
	return append(slices.Clone(r.byPool[""]), r.byPool[pool]...)
}

func (r *rules) add(next *rule) {
	r.byName[next.name] = next
	of := r.byPool[next.pool]
	at, _ := slices.BinarySearchFunc(of, next, func(a, b *rule) int { return cmp.Compare(a.name, b.name) })
	r.byPool[next.pool] = slices.Insert(of, at, next)
}

func (r *rules) remove(gone *rule) {
	delete(r.byName, gone.name)
	left := slices.DeleteFunc(r.byPool[gone.pool], func(other *rule) bool { return other == gone })
	if r.byPool[gone.pool] = left; len(left) == 0 {
		delete(r.byPool, gone.pool)
	}
}

// KeepsOut tells whether a claim must tolerate the taint to get the device. Other
// effects, also such as are not known yet, are for information.
func KeepsOut(taint resourceapi.DeviceTaint) bool {
	return taint.Effect == resourceapi.DeviceTaintEffectNoSchedule || taint.Effect == resourceapi.DeviceTaintEffectNoExecute
}

// SetTaintRule tells of a DeviceTaintRule that is new or has changed. The devices
// that it selects have its taint from now on, beside those that their slices
// have. It returns whether anything is new for devices of ours: a rule's status
// changes, too.
func (f *Fleet) SetTaintRule(r *resourceapi.DeviceTaintRule) bool {
	next := f.ruleFrom(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.rules.byName[r.Name]
	if before == next || before != nil && next != nil && *before == *next {
		return false
	}
	if before != nil {
		f.rules.remove(before)
	}
	if next != nil {
		f.rules.add(next)
	}
	f.applyRules(before, next)
	return true
}

// DeleteTaintRule tells that there is no such DeviceTaintRule any more. It
// returns whether it was for devices of ours.
func (f *Fleet) DeleteTaintRule(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.rules.byName[name]
	if before == nil {
		return false
	}
	f.rules.remove(before)
	f.applyRules(before)
	return true
}

// ruleFrom returns nil for a rule that selects nothing of ours. One without a
// selector selects nothing, one with an empty selector everything.
func (f *Fleet) ruleFrom(r *resourceapi.DeviceTaintRule) *rule {
	selector := r.Spec.DeviceSelector
	if selector == nil || ptr.Deref(selector.Driver, f.driver) != f.driver {
		return nil
	}
	if selector.Pool != nil && *selector.Pool == "" || selector.Device != nil && *selector.Device == "" {
		return nil // nothing is called so
	}
	taint := r.Spec.Taint
	taint.TimeAdded = nil
	return &rule{name: r.Name, pool: ptr.Deref(selector.Pool, ""), device: ptr.Deref(selector.Device, ""), taint: taint}
}

// applyRules builds the pools anew for which these rules, old or new, are.
func (f *Fleet) applyRules(changed ...*rule) {
	// Machines that are built alike get the same, and that is worked out once.
	alike := map[*part]*part{}
	for name, p := range f.pools {
		if !slices.ContainsFunc(changed, func(r *rule) bool { return r != nil && (r.pool == "" || r.pool == name) }) {
			continue
		}
		if len(f.rules.byPool[name]) > 0 {
			f.retaint(p, map[*part]*part{})
		} else {
			f.retaint(p, alike)
		}
	}
}

// retaint gives a pool's devices the taints that rules give them now. Known are
// parts as slices have them, and what rules make of them.
func (f *Fleet) retaint(p *pool, known map[*part]*part) {
	changed := false
	for _, s := range p.slices {
		next := known[s.published]
		if next == nil {
			next = s.published.with(f.rules.of(p.name))
			known[s.published] = next
		}
		next = f.shapes.keep(next)
		changed = changed || next != s.part
		f.shapes.dropPart(s.part)
		s.part = next
	}
	if changed {
		f.build(p)
	}
}

// with returns the part with the taints that the rules give its devices: itself
// if they give none.
func (p *part) with(of []*rule) *part {
	var out *part
	for i := range p.devices {
		taints := p.devices[i].Taints
		for _, r := range of {
			if r.device != "" && r.device != p.devices[i].Name || slices.Contains(taints, r.taint) {
				continue
			}
			taints = append(slices.Clip(taints), r.taint)
		}
		if len(taints) == len(p.devices[i].Taints) {
			continue
		}
		if out == nil {
			out = &part{devices: slices.Clone(p.devices), consumes: p.consumes, sets: p.sets}
		}
		out.devices[i].Taints, out.devices[i].api.Taints = taints, taints
	}
	if out == nil {
		return p
	}
	out.key = out.sum()
	return out
}
