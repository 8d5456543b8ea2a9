package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestEachClaimHasAGPUOfItsOwnAndTheNextWaitsForOneToBeFree(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	var names []string
	for i := range gpusPerNode {
		names = append(names, fmt.Sprintf("holder-%d", i))
		s.pod(names[i], "one")
	}
	var held []string
	for _, name := range names {
		s.wait(name, harness.Running())
		held = append(held, s.gpus(name, "show", 1)...)
	}
	wantDistinct(t, held)

	s.pod("next", "one")
	s.wait("next", harness.Unschedulable())
	s.delete(names[3])
	s.wait("next", harness.Running())
	if diff := cmp.Diff(held[3:4], s.gpus("next", "show", 1)); diff != "" {
		t.Errorf("the waiting pod did not get the GPU that was freed (-freed +got):\n%s", diff)
	}
}

func TestTheSecondAlternativeIsTakenWhereTheFirstDoesNotExist(t *testing.T) {
	s := newSpace(t, nil)
	alternative := func(name, product string) resourceapi.DeviceSubRequest {
		return resourceapi.DeviceSubRequest{
			Name:            name,
			DeviceClassName: harness.DeviceClass,
			AllocationMode:  resourceapi.DeviceAllocationModeExactCount,
			Count:           1,
			Selectors:       selectors([]string{"device.attributes['eks-hybrid-dra'].productName.contains(' " + product + "')"}),
		}
	}
	s.template("either", resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
		Name:           "gpu",
		FirstAvailable: []resourceapi.DeviceSubRequest{alternative("h100", "H100"), alternative("h200", "H200")},
	}}}})
	s.pod("either", "either")
	s.wait("either", harness.Running())
	s.gpus("either", "show", 1)
	if got := s.claim("either").Status.Allocation.Devices.Results[0].Request; got != "gpu/h200" {
		t.Errorf("the claim was allocated for %q, want gpu/h200", got)
	}
}

func TestAClaimThatNoGPUSatisfiesLeavesItsPodPending(t *testing.T) {
	s := newSpace(t, nil)
	s.template("huge", gpus(1, "device.capacity['eks-hybrid-dra'].memory.compareTo(quantity('1Ti')) >= 0"))
	s.pod("huge", "huge")
	s.wait("huge", harness.Unschedulable())
}

func TestTheGPUOfAForceDeletedPodGoesToTheNextPod(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	s.pod("stuck", "one")
	s.wait("stuck", harness.Running())
	s.template("same", gpus(1, byUUID(s.gpus("stuck", "show", 1)[0])))
	s.pod("next", "same")
	s.wait("next", harness.Unschedulable())

	// The API forgets the pod at once, while kubelet still ends its containers.
	err := cluster.Client.CoreV1().Pods(s.name).Delete(s.ctx, "stuck", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	if err != nil {
		t.Fatalf("deleting the pod by force: %v", err)
	}
	s.wait("next", harness.Running())
	s.gpus("next", "show", 1)
}
