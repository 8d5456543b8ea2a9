package taintrules

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// names tells whether the rule selects some devices of the pool by their names.
// A rule without a name is of all devices of a pool, of what is made of parts
// too, and one without a selector of none: see applyPatches in
// k8s.io/dynamic-resource-allocation/resourceslice/tracker.
func (r *Rules) names(rule *resourceapi.DeviceTaintRule) bool {
	if rule == nil || rule.Spec.DeviceSelector == nil || rule.Spec.DeviceSelector.Device == nil {
		return false
	}
	s := rule.Spec.DeviceSelector
	return (s.Driver == nil || *s.Driver == r.driver) && (s.Pool == nil || *s.Pool == r.pool)
}

// Naming returns the taints of the rules that select one of the devices by its
// name, the strongest first, each once. Of the same one given twice it is the
// older: whoever tolerates it for a while has had it since then.
func (r *Rules) Naming(devices ...string) []resourceapi.DeviceTaint {
	r.mu.Lock()
	informer := r.informer
	r.mu.Unlock()
	if informer == nil {
		return nil
	}
	var taints []resourceapi.DeviceTaint
	for _, object := range informer.GetIndexer().List() {
		rule, ok := object.(*resourceapi.DeviceTaintRule)
		// An effect that is not known has none, says the API.
		if ok && r.names(rule) && slices.Contains(devices, *rule.Spec.DeviceSelector.Device) && strength(rule.Spec.Taint) > 0 {
			taints = append(taints, *rule.Spec.Taint.DeepCopy())
		}
	}
	slices.SortFunc(taints, func(a, b resourceapi.DeviceTaint) int {
		return cmp.Or(byKind(a, b), byAge(a, b))
	})
	return slices.CompactFunc(taints, func(a, b resourceapi.DeviceTaint) bool { return byKind(a, b) == 0 })
}

func byKind(a, b resourceapi.DeviceTaint) int {
	return cmp.Or(cmp.Compare(strength(b), strength(a)), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
}

func byAge(a, b resourceapi.DeviceTaint) int {
	return ptr.Deref(a.TimeAdded, metav1.Time{}).Compare(ptr.Deref(b.TimeAdded, metav1.Time{}).Time)
}

// strength is more for taints that do more, and zero for those that do what
// nobody knows here.
func strength(taint resourceapi.DeviceTaint) int {
	return 1 + slices.Index([]resourceapi.DeviceTaintEffect{
		resourceapi.DeviceTaintEffectNone, resourceapi.DeviceTaintEffectNoSchedule, resourceapi.DeviceTaintEffectNoExecute,
	}, taint.Effect)
}
