package gangplan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

const home = "eks-hybrid-dra"

func plan(gang string, members int) Plan {
	p := Plan{Gang: types.NamespacedName{Namespace: "team", Name: gang}}
	for range members {
		var results []resourceapi.DeviceRequestAllocationResult
		for range 8 {
			results = append(results, resourceapi.DeviceRequestAllocationResult{Request: "gpus", Driver: "eks-hybrid-dra", Pool: "node/eks-hybrid-dra", Device: "gpu-0-vf"})
		}
		p.Members = append(p.Members, Member{Name: "claim", UID: "uid", Node: "node", Allocation: resourceapi.AllocationResult{
			Devices: resourceapi.DeviceAllocationResult{Results: results},
			NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"node"}}},
			}}},
		}})
	}
	return p
}

func TestAPlanIsFoundUntilItIsDeleted(t *testing.T) {
	store := NewStore(fake.NewClientset(), home)
	want := plan("train", 64)
	if err := store.Save(t.Context(), plan("train", 3)); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), want); err != nil {
		t.Fatalf("over an older one: %v", err)
	}
	got, unreadable, err := store.List(t.Context())
	if err != nil || len(unreadable) > 0 {
		t.Fatal(unreadable, err)
	}
	if diff := cmp.Diff([]Plan{want}, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := store.Delete(t.Context(), want.Gang); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, _ := store.List(t.Context()); len(got) != 0 {
		t.Errorf("%d plans are left", len(got))
	}
}

func TestAPlanThatCannotBeReadIsTold(t *testing.T) {
	good, err := encode(home, plan("train", 1))
	if err != nil {
		t.Fatal(err)
	}
	foreign := good.DeepCopy()
	foreign.Name = "another"
	broken := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "broken", Labels: map[string]string{Label: "true"}},
		BinaryData: map[string][]byte{dataKey: []byte("{")},
	}
	store := NewStore(fake.NewClientset(good, foreign, broken), home)
	plans, unreadable, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) != 1 || len(unreadable) != 2 {
		t.Fatalf("%d plans and %d unreadable ones, want 1 and 2", len(plans), len(unreadable))
	}
	for _, u := range unreadable {
		if !strings.Contains(u.Err.Error(), dataKey) {
			t.Errorf("%s: %v does not name the field", u.Name, u.Err)
		}
		if err := store.Discard(t.Context(), u); err != nil {
			t.Error(err)
		}
	}
	if _, unreadable, _ := store.List(t.Context()); len(unreadable) != 0 {
		t.Errorf("%d unreadable plans are left", len(unreadable))
	}
}
