package allocation

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// Pods have reserved both claims of a device. Neither is taken from its pod; the
// users of the later one are told once what to do.
func TestADeviceOfTwoClaimsInUse(t *testing.T) {
	machine := fleettest.DGX("dgx-0")
	s := newStand(t, machine)
	for i, name := range []string{"first", "second"} {
		claim := fleettest.Allocated(gpus(name, 1, nil), machine, "gpu-0")
		claim.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: metav1.Unix(int64(1000+i), 0).Time}
		claim.Status.Allocation.NodeSelector = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"dgx-0"}}},
		}}}
		claim.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod-of-" + name, UID: "p"}}
		s.make(claim)
	}
	s.run()
	for _, claim := range s.claims.all() {
		s.feed.look(claim)
	}
	s.run()
	told := s.told()
	if strings.Count(told, "DoubleAllocation") != 1 || !strings.Contains(told, "claim default/first has, too") || !strings.Contains(told, "Delete the pod pod-of-second") {
		t.Errorf("events: %s", told)
	}
	if got := s.allocated(); len(got) != 2 {
		t.Errorf("still allocated: %v", got)
	}
}
