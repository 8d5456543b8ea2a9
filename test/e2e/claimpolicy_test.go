package e2e

import (
	"context"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestThePluginMayWriteOnlyTheStatusOfItsOwnDevices(t *testing.T) {
	const node, pool, other = "dgx-1", "dgx-1/" + harness.DriverName, "dgx-2/" + harness.DriverName
	ours := func(pool string) func(*resourceapply.ResourceClaimStatusApplyConfiguration) {
		return func(s *resourceapply.ResourceClaimStatusApplyConfiguration) {
			s.WithDevices(resourceapply.AllocatedDeviceStatus().WithDriver(harness.DriverName).WithPool(pool).WithDevice("d").
				WithNetworkData(resourceapply.NetworkDeviceData().WithInterfaceName("net1")))
		}
	}
	tests := map[string]struct {
		loose   bool // a token that is bound to no pod
		node    string
		change  func(*resourceapply.ResourceClaimStatusApplyConfiguration)
		refused bool
	}{
		"its own":        {node: node, change: ours(pool)},
		"a loose token":  {loose: true, node: node, change: ours(pool), refused: true},
		"another node's": {node: "dgx-2", change: ours(other), refused: true},
		"another driver's": {node: node, refused: true, change: func(s *resourceapply.ResourceClaimStatusApplyConfiguration) {
			s.WithDevices(resourceapply.AllocatedDeviceStatus().WithDriver("nic.example.com").WithPool("p").WithDevice("d"))
		}},
		"who may use the claim": {node: node, refused: true, change: func(s *resourceapply.ResourceClaimStatusApplyConfiguration) {
			s.WithReservedFor(resourceapply.ResourceClaimConsumerReference().WithResource("pods").WithName("another").WithUID("another"))
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			claim := statusClaim(t, test.node)
			bound := podOn(t, node)
			if test.loose {
				bound = nil
			}
			status := resourceapply.ResourceClaimStatus()
			test.change(status)
			err := applyStatus(t, asPlugin(t, bound), claim, status)
			// From Kubernetes 1.36 on the API server itself calls it invalid.
			if refused := apierrors.IsForbidden(err) || apierrors.IsInvalid(err); refused != test.refused || (err != nil && !refused) {
				t.Fatalf("got %v, want it refused: %v", err, test.refused)
			}
			if test.refused {
				t.Log(err)
				return
			}
			gone := claim.DeepCopy()
			gone.UID = "gone"
			if err := applyStatus(t, asPlugin(t, bound), gone, status); !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
				t.Errorf("the status of a claim that is gone was written to another of its name: %v", err)
			}
		})
	}
}

func applyStatus(t *testing.T, client kubernetes.Interface, claim *resourceapi.ResourceClaim, status *resourceapply.ResourceClaimStatusApplyConfiguration) error {
	t.Helper()
	_, err := client.ResourceV1().ResourceClaims(claim.Namespace).ApplyStatus(t.Context(),
		resourceapply.ResourceClaim(claim.Name, claim.Namespace).WithUID(claim.UID).WithStatus(status),
		metav1.ApplyOptions{FieldManager: harness.DriverName, Force: true})
	return err
}

// statusClaim makes a claim that is allocated device d of a node, and one of
// another driver.
func statusClaim(t *testing.T, node string) *resourceapi.ResourceClaim {
	t.Helper()
	claim, err := draclient.CreateAllocated(t.Context(), cluster.Client, draclient.Allocation{
		Namespace: harness.Namespace, Name: rand.String(10), Node: node,
		Results: []draclient.Result{
			{Driver: harness.DriverName, Pool: node + "/" + harness.DriverName, Device: "d"},
			{Driver: "nic.example.com", Pool: "p", Device: "d"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := draclient.Delete(context.WithoutCancel(t.Context()), cluster.Client, draclient.ClaimOf(claim)); err != nil {
			t.Error(err)
		}
	})
	return claim
}
