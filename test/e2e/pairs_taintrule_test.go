package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const ruleKey = "example.com/service"

// needRules skips the test where no DeviceTaintRules are served.
func needRules(t *testing.T) {
	t.Helper()
	version := resourceapi.SchemeGroupVersion.String()
	list, err := cluster.Client.Discovery().ServerResourcesForGroupVersionWithContext(t.Context(), version)
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if list == nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == "devicetaintrules" }) {
		t.Skipf("this version of Kubernetes serves no DeviceTaintRules as %s", version)
	}
}

// rule makes a rule for one device of the node, and returns the taint that it
// has in the API. The rule is gone after the test.
func (s *space) rule(name, device string, effect resourceapi.DeviceTaintEffect) resourceapi.DeviceTaint {
	s.t.Helper()
	driver := harness.DriverName
	rules := cluster.Client.ResourceV1().DeviceTaintRules()
	made, err := rules.Create(s.ctx, &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: s.name + "-" + name},
		Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: &resourceapi.DeviceTaintSelector{Driver: &driver, Device: &device},
			Taint:          resourceapi.DeviceTaint{Key: ruleKey, Value: name, Effect: effect},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatalf("making rule %s: %v", name, err)
	}
	s.t.Cleanup(func() {
		if err := rules.Delete(context.WithoutCancel(s.t.Context()), made.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.t.Errorf("deleting rule %s: %v", made.Name, err)
		}
	})
	return made.Spec.Taint
}

func (s *space) removeRule(name string) {
	s.t.Helper()
	if err := cluster.Client.ResourceV1().DeviceTaintRules().Delete(s.ctx, s.name+"-"+name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatalf("deleting rule %s: %v", name, err)
	}
}

// wantPairTaints waits until pairs are published with these taints, and all
// others with none.
func (s *space) wantPairTaints(want map[string][]resourceapi.DeviceTaint) {
	s.t.Helper()
	s.until("published with their taints", func() error {
		got := map[string][]resourceapi.DeviceTaint{}
		for _, d := range published(s.t, pairType) {
			if len(d.Taints) > 0 {
				got[d.Name] = d.Taints
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("taints (-want +got):\n%s", diff)
		}
		return nil
	})
}

// An admin takes a GPU or a VF out of service by its name. The pair goes with
// it, those who have it included, and comes back with it.
func TestARuleForAPartCountsForThePair(t *testing.T) {
	s := newSpace(t, nil)
	all := s.waitPairs()
	needRules(t)
	type taints = map[string][]resourceapi.DeviceTaint
	for i := range 2 {
		s.template(fmt.Sprintf("pair-%d", i), pairs(1, fmt.Sprintf("device.attributes['eks-hybrid-dra'].index == %d", i)))
	}

	service := s.rule("service", "gpu-0", resourceapi.DeviceTaintEffectNoSchedule)
	look := s.rule("look", "gpu-1", resourceapi.DeviceTaintEffectNone)
	s.wantPairTaints(taints{"gpu-0-vf": {service}, "gpu-1-vf": {look}})
	s.pod("first", "pair-0")
	s.wait("first", harness.Unschedulable())
	s.pod("other", "pair-1")
	s.wait("other", harness.Running())
	s.removeRule("service")
	s.wait("first", harness.Running())
	s.removeRule("look")
	s.wantPairTaints(taints{})

	cable := s.rule("cable", s.vfAt(value(all[0].Attributes["vfPCIBusID"])), resourceapi.DeviceTaintEffectNoExecute)
	s.waitGone("first")
	s.wantPairTaints(taints{"gpu-0-vf": {cable}})
	s.pod("next", "pair-0")
	s.wait("next", harness.Unschedulable())
	s.wait("other", harness.Running())
	if metrics := pluginSays(t, "/metrics"); strings.Contains(metrics, "eks_hybrid_dra_unhealthy_device{") {
		t.Error("the metrics say that a device is unhealthy")
	}

	s.rollPlugin() // the next instance finds the rule there
	s.wantPairTaints(taints{"gpu-0-vf": {cable}})
	s.wait("next", harness.Unschedulable())
	s.removeRule("cable")
	s.wait("next", harness.Running())
	s.wantAligned("next", 1)
}

// vfAt returns the name of the VF with that address.
func (s *space) vfAt(address string) string {
	s.t.Helper()
	for _, d := range published(s.t, "vf") {
		if value(d.Attributes["resource.kubernetes.io/pciBusID"]) == address {
			return d.Name
		}
	}
	s.t.Fatalf("no VF has address %s", address)
	return ""
}
