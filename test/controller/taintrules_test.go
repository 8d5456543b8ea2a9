package controller

import (
	"fmt"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// rule makes a DeviceTaintRule for a device of a node, that is gone after the test.
func (s *site) rule(name, node, device string) {
	s.t.Helper()
	rules := cluster.Client.ResourceV1().DeviceTaintRules()
	_, err := rules.Create(s.ctx, &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: s.name + "-" + name},
		Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: &resourceapi.DeviceTaintSelector{Driver: &s.name, Pool: ptr.To(node + "/" + s.name), Device: &device},
			Taint:          resourceapi.DeviceTaint{Key: "example.com/service", Value: name, Effect: resourceapi.DeviceTaintEffectNoSchedule},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		s.t.Skip("this version of Kubernetes serves no DeviceTaintRules as resource.k8s.io/v1")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := rules.Delete(s.ctx, s.name+"-"+name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.t.Error(err)
		}
	})
}

func (s *site) removeRule(name string) {
	s.t.Helper()
	if err := cluster.Client.ResourceV1().DeviceTaintRules().Delete(s.ctx, s.name+"-"+name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// devices are those of a claim, in order.
func devices(claim *resourceapi.ResourceClaim) []string {
	var names []string
	for _, result := range claim.Status.Allocation.Devices.Results {
		names = append(names, result.Device)
	}
	slices.Sort(names)
	return names
}

func TestADeviceTaintRuleKeepsClaimsFromADevice(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.rule("cable", s.nodes[0], "gpu-0")
	s.rule("fan", s.nodes[0], "gpu-5")
	s.start(settings{})
	s.claim("six", 6, nil)
	if got, want := devices(s.allocated("six")), []string{"gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-6", "gpu-7"}; !slices.Equal(got, want) {
		t.Errorf("claim six has %v, want %v", got, want)
	}
	s.claim("waits", 1, nil)
	tolerant := claimFor("tolerant", s.class, 1)
	tolerant.Spec.Devices.Requests[0].Exactly.Tolerations = []resourceapi.DeviceToleration{{Key: "example.com/service", Operator: resourceapi.DeviceTolerationOpEqual, Value: "fan"}}
	s.make(tolerant)
	if got := devices(s.allocated("tolerant")); !slices.Equal(got, []string{"gpu-5"}) {
		t.Errorf("claim tolerant has %v, and tolerates gpu-5 only", got)
	}
	if claim := s.get("waits"); claim.Status.Allocation != nil {
		t.Errorf("claim waits has %v, which is tainted", devices(claim))
	}
	s.removeRule("cable")
	if got := devices(s.allocated("waits")); !slices.Equal(got, []string{"gpu-0"}) {
		t.Errorf("claim waits has %v", got)
	}
	// A rule that comes when the controller has been running for a while.
	for _, name := range []string{"six", "tolerant", "waits"} {
		s.deleteClaim(name)
	}
	s.rule("drain", s.nodes[0], "gpu-0")
	tries := 0
	s.eventually("a claim gets the next device", func() (bool, string) {
		tries++
		name := fmt.Sprint("next-", tries)
		s.claim(name, 1, nil)
		got := devices(s.allocated(name))
		s.deleteClaim(name)
		return got[0] == "gpu-1", got[0]
	})
}

// deleteClaim returns when the claim is gone.
func (s *site) deleteClaim(name string) {
	s.t.Helper()
	claims := cluster.Client.ResourceV1().ResourceClaims(s.name)
	if err := claims.Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("claim "+name+" is gone", func() (bool, string) {
		_, err := claims.Get(s.ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}
