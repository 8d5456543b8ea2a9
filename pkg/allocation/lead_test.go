package allocation

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
)

// What is in the way of a new leader, and will go away or does no harm, does not
// end it: another one would find the same.
func TestALeaderBeginsAllTheSame(t *testing.T) {
	s := newStand(t, fleettest.DGX("a"))
	client, ok := s.Client.(*fake.Clientset)
	if !ok {
		t.Fatalf("the client is a %T", s.Client)
	}
	broken := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "own", Name: "eks-hybrid-dra-gang-x", UID: "x", Labels: map[string]string{gangplan.Label: "true"}},
		BinaryData: map[string][]byte{"plan.json.gz": []byte("?")},
	}
	if err := client.Tracker().Add(broken); err != nil {
		t.Fatal(err)
	}
	failures := map[string]int{"resourceclaims": 1, "configmaps": 1}
	client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		what := action.GetResource().Resource
		failures[what]--
		if failures[what] >= 0 {
			return true, nil, apierrors.NewInternalError(errors.New("etcd has no leader"))
		}
		return false, nil, nil
	})
	client.PrependReactor("delete", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("configmaps"), broken.Name, errors.New("no"))
	})
	if err := (&lead{s.Controller}).WaitForSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case event := <-s.events.Events:
		if !strings.Contains(event, "Warning PlanUnreadable") || !strings.Contains(event, "plan.json.gz") {
			t.Errorf("event %q", event)
		}
	default:
		t.Error("no event tells of the plan that cannot be read")
	}
	s.make(gpus("c", 1, nil))
	s.run()
	if !s.allocated()["c"] {
		t.Error("the claim is not allocated")
	}
}
