package allocation

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// change writes a claim's status as others do, and tells the controller.
func (s *stand) change(name string, change func(*resourceapi.ResourceClaimStatus)) {
	s.t.Helper()
	claims := s.Client.ResourceV1().ResourceClaims("default")
	claim, err := claims.Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	change(&claim.Status)
	if claim, err = claims.UpdateStatus(s.t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.feed.observe(claim, fromWatch)
}

// A pod ends, kube-controller-manager gives its claim back, and that becomes known
// before the end of the pod does: the claim is allocated for it once more.
func TestAClaimThatIsAllocatedForAPodThatHasEnded(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.make(gpus("c", 8, nil))
	s.pod("p", "c")
	s.run()
	s.change("c", func(status *resourceapi.ResourceClaimStatus) {
		status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "p"}}
	})
	s.run()
	s.change("c", func(status *resourceapi.ResourceClaimStatus) { *status = resourceapi.ResourceClaimStatus{} })
	s.run()
	if !s.allocated()["c"] {
		t.Fatal("the claim has a pod, as far as anybody knows, and is not allocated")
	}
	claim := "c"
	s.feed.podGone(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}, Spec: corev1.PodSpec{
		ResourceClaims: []corev1.PodResourceClaim{{Name: claim, ResourceClaimName: &claim}},
	}})
	s.run()
	if s.allocated()["c"] {
		t.Error("the claim keeps devices for a pod that is gone")
	}
	if claim := s.claims.get(types.NamespacedName{Namespace: "default", Name: "c"}); !claimwrite.WaitsForPod(claim) {
		t.Error("the claim does not wait for another pod")
	}
	s.make(gpus("other", 8, nil))
	s.run()
	if !s.allocated()["other"] {
		t.Error("another claim cannot have the devices")
	}
}
