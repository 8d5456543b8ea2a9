package driver

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"
)

// The API server takes the order of fields in a claim's opaque parameters, which
// an apply changes, for a changed allocation.
func TestStatusOfAClaimThatCannotBeAppliedIsPatched(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	claim := newClaim("a", []string{"net1"})
	other := resourceapi.AllocatedDeviceStatus{Driver: "other.example.com", Pool: "p", Device: "d", NetworkData: &resourceapi.NetworkDeviceData{InterfaceName: "eth9"}}
	claim.Status.Devices = []resourceapi.AllocatedDeviceStatus{other}
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	n.client.PrependReactor("patch", "resourceclaims", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		if !ok || patch.GetPatchType() != types.ApplyPatchType {
			return false, nil, nil
		}
		return true, nil, apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "claim-a", field.ErrorList{
			field.Forbidden(field.NewPath("status", "allocation"), `requires resource="resourceclaims/binding"`),
			field.Invalid(field.NewPath("status", "allocation"), nil, "field cannot be modified once set"),
		})
	})
	c := newClaimStatuses(d)
	defer c.queue.ShutDown()
	for range 2 { // what is there already is replaced
		n.backdate("a")
		if err := c.write(t.Context(), "a", &attachFailure{message: "cause"}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := n.client.ResourceV1().ResourceClaims("ns").Get(t.Context(), "claim-a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claim.Status.Allocation, got.Status.Allocation); diff != "" {
		t.Errorf("allocation (-before +after):\n%s", diff)
	}
	if len(got.Status.Devices) != 2 {
		t.Fatalf("%d entries, want that of another driver and ours: %+v", len(got.Status.Devices), got.Status.Devices)
	}
	if diff := cmp.Diff(other, got.Status.Devices[0]); diff != "" {
		t.Errorf("another driver's entry (-before +after):\n%s", diff)
	}
	if ours := got.Status.Devices[1]; ours.NetworkData == nil || ours.NetworkData.InterfaceName == "" || len(ours.Conditions) != 2 {
		t.Errorf("our entry: %+v", ours)
	}
}
