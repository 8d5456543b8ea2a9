package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// taintRule is one with a taint whose value is the rule's name.
func taintRule(name string, selector *resourceapi.DeviceTaintSelector) *resourceapi.DeviceTaintRule {
	return &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourceapi.DeviceTaintRuleSpec{DeviceSelector: selector, Taint: resourceapi.DeviceTaint{
			Key: "example.com/maintenance", Value: name, Effect: resourceapi.DeviceTaintEffectNoExecute, TimeAdded: ptr.To(metav1.Now()),
		}},
	}
}

func selecting(driver, pool, device string) *resourceapi.DeviceTaintSelector {
	selector := &resourceapi.DeviceTaintSelector{}
	for field, value := range map[**string]string{&selector.Driver: driver, &selector.Pool: pool, &selector.Device: device} {
		if value != "" {
			*field = &value
		}
	}
	return selector
}

// tainted are the devices of a node with the values of their taints. All of a
// kind are one entry.
func tainted(t *testing.T, f *fleet.Fleet, node string) []string {
	t.Helper()
	got := []string{}
	p := pool(t, f, node)
	for i, d := range p.Shape.Devices {
		var values []string
		for _, taint := range d.Taints {
			if taint.TimeAdded != nil {
				t.Errorf("device %s: taint %s has a time", d.Name, taint.Value)
			}
			values = append(values, taint.Value)
		}
		if len(values) > 0 {
			got = append(got, d.Name+": "+strings.Join(values, " "))
		}
		if diff := cmp.Diff(d.Taints, p.Device(i).Taints); diff != "" {
			t.Errorf("device %s has other taints for the allocator (-want +got):\n%s", d.Name, diff)
		}
	}
	return got
}

func TestWhichDevicesARuleTaints(t *testing.T) {
	m := fleettest.Machine{Node: "a", GPUs: 2, Managed: true, Sick: []string{"gpu-1"}}
	sick := "gpu-1: LinkDown"
	for name, test := range map[string]struct {
		selector *resourceapi.DeviceTaintSelector
		want     []string
	}{
		"one device":              {selecting(fleettest.Driver, m.Pool(), "gpu-0"), []string{"gpu-0: r", sick}},
		"one that is sick":        {selecting("", "", "gpu-1"), []string{"gpu-1: LinkDown r"}},
		"a pool":                  {selecting("", m.Pool(), ""), []string{"gpu-0: r", "gpu-1: LinkDown r"}},
		"a driver":                {selecting(fleettest.Driver, "", ""), []string{"gpu-0: r", "gpu-1: LinkDown r"}},
		"everything":              {selecting("", "", ""), []string{"gpu-0: r", "gpu-1: LinkDown r"}},
		"nothing":                 {nil, []string{sick}},
		"another driver":          {selecting("gpu.nvidia.com", "", ""), []string{sick}},
		"another pool":            {selecting("", "b/"+fleettest.Driver, "gpu-0"), []string{sick}},
		"another device":          {selecting("", "", "gpu-7"), []string{sick}},
		"a pool without a name":   {&resourceapi.DeviceTaintSelector{Pool: ptr.To("")}, []string{sick}},
		"a device without a name": {&resourceapi.DeviceTaintSelector{Device: ptr.To("")}, []string{sick}},
	} {
		t.Run(name, func(t *testing.T) {
			rule := taintRule("r", test.selector)
			after := newFleet(m)
			after.SetTaintRule(rule)
			before := fleet.New(fleettest.Driver)
			before.SetTaintRule(rule)
			before.SetNode(m.Object(nil))
			for _, slice := range m.Slices() {
				before.SetSlice(slice)
			}
			for when, f := range map[string]*fleet.Fleet{"rule first": before, "slices first": after} {
				if diff := cmp.Diff(test.want, tainted(t, f, "a")); diff != "" {
					t.Errorf("%s: tainted devices (-want +got):\n%s", when, diff)
				}
				f.DeleteTaintRule("r")
				if diff := cmp.Diff([]string{sick}, tainted(t, f, "a")); diff != "" {
					t.Errorf("%s: tainted devices without the rule (-want +got):\n%s", when, diff)
				}
			}
		})
	}
}

func TestRulesChange(t *testing.T) {
	m := fleettest.Machine{Node: "a", GPUs: 2, Managed: true}
	f := newFleet(m)
	step := func(what string, changes, wantChanges bool, want ...string) {
		t.Helper()
		if changes != wantChanges {
			t.Errorf("%s: told of a change: %t", what, changes)
		}
		if diff := cmp.Diff(append([]string{}, want...), tainted(t, f, "a")); diff != "" {
			t.Errorf("%s: tainted devices (-want +got):\n%s", what, diff)
		}
	}
	rule := taintRule("x", selecting("", "", "gpu-0"))
	step("new", f.SetTaintRule(rule), true, "gpu-0: x")
	rule.Status.Conditions = []metav1.Condition{{Type: "EvictionInProgress"}}
	step("new status", f.SetTaintRule(rule), false, "gpu-0: x")
	step("a second one", f.SetTaintRule(taintRule("w", selecting("", m.Pool(), ""))), true, "gpu-0: x w", "gpu-1: w")
	twin := taintRule("y", selecting("", "", "gpu-0"))
	twin.Spec.Taint = rule.Spec.Taint
	step("the same taint once more", f.SetTaintRule(twin), true, "gpu-0: x w", "gpu-1: w")
	rule.Spec.DeviceSelector = selecting("", "", "gpu-1")
	step("another selector", f.SetTaintRule(rule), true, "gpu-0: x w", "gpu-1: x w")
	rule.Spec.DeviceSelector = selecting("gpu.nvidia.com", "", "")
	step("of another driver now", f.SetTaintRule(rule), true, "gpu-0: x w", "gpu-1: w")
	step("one that never was ours goes", f.DeleteTaintRule("x"), false, "gpu-0: x w", "gpu-1: w")
	step("the second one goes", f.DeleteTaintRule("w"), true, "gpu-0: x")
	step("the last one goes", f.DeleteTaintRule("y"), true)
	step("once more", f.DeleteTaintRule("y"), false)
	// A taint that is for information keeps nobody out.
	note := taintRule("note", selecting("", "", ""))
	note.Spec.Taint.Effect = resourceapi.DeviceTaintEffectNone
	step("dry run", f.SetTaintRule(note), true, "gpu-0: note", "gpu-1: note")
	for _, usage := range f.View().Node("a").Usage() {
		if usage.Unhealthy != 0 {
			t.Errorf("%d devices count as unhealthy", usage.Unhealthy)
		}
	}
}

// Machines that are built alike stay so under rules for all of them, and one that
// a rule names becomes like the others again.
func TestRulesAndWhatMachinesHaveInCommon(t *testing.T) {
	var machines []fleettest.Machine
	for i := range 3 {
		machines = append(machines, fleettest.DGX(fmt.Sprint("n", i)))
	}
	f := newFleet(machines...)
	shapes := func() int {
		ids := map[uint64]bool{}
		for _, m := range machines {
			ids[pool(t, f, m.Node).Shape.ID()] = true
		}
		return len(ids)
	}
	step := func(what string, want int) {
		t.Helper()
		if got := shapes(); got != want {
			t.Errorf("%s: %d shapes, want %d", what, got, want)
		}
	}
	step("at first", 1)
	f.SetTaintRule(taintRule("all", selecting("", "", "gpu-3")))
	step("with a rule for all", 1)
	f.SetTaintRule(taintRule("one", selecting("", machines[1].Pool(), "gpu-4")))
	step("with a rule for one", 2)
	for _, slice := range machines[1].Slices() { // published anew, which changes nothing
		f.SetSlice(slice)
	}
	step("after that one's slices have come again", 2)
	f.DeleteTaintRule("one")
	step("without it", 1)
	f.DeleteTaintRule("all")
	step("without rules", 1)
	if got := tainted(t, f, "n1"); len(got) > 0 {
		t.Errorf("tainted without rules: %v", got)
	}
}
