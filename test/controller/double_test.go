package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// give writes an allocation as a controller would that was held up for long: it
// does not know what others have given meanwhile.
func (s *site) give(claim, driver, node, device string, at time.Time, reserve ...resourceapi.ResourceClaimConsumerReference) {
	s.t.Helper()
	claims := cluster.Client.ResourceV1().ResourceClaims(s.name)
	object := s.get(claim)
	object.Finalizers = append(object.Finalizers, resourceapi.Finalizer)
	object, err := claims.Update(s.ctx, object, metav1.UpdateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	object.Status.Allocation = &resourceapi.AllocationResult{
		AllocationTimestamp: &metav1.Time{Time: at},
		Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{
			Request: "gpu", Driver: driver, Pool: node + "/" + driver, Device: device,
		}}},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}},
	}
	object.Status.ReservedFor = reserve
	if _, err := claims.UpdateStatus(s.ctx, object, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// reservation is that of a pod of the site.
func (s *site) reservation(pod string) resourceapi.ResourceClaimConsumerReference {
	s.t.Helper()
	object, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, pod, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod, UID: object.UID}
}

// Two leaders have given one device, and pods have both claims: the controller
// takes back neither, and says which pod to delete.
func TestTwoClaimsInUseHaveOneDevice(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	on := func(spec *corev1.PodSpec) { spec.NodeName = s.nodes[0] }
	for i, name := range []string{"first", "second"} {
		s.claim(name, 1, nil)
		s.pod(name, on, name)
		// The API knows whole seconds only.
		s.give(name, s.name, s.nodes[0], "gpu-3", time.Now().Add(time.Duration(i-1)*time.Minute), s.reservation(name))
	}
	s.start(settings{})
	s.event("second", "DoubleAllocation", fmt.Sprintf("The claim has devices of pool %s/%s that claim %s/first has, too", s.nodes[0], s.name, s.name))
	s.event("second", "DoubleAllocation", "Delete the pod second")
	s.deletePod("second")
	s.deleteClaim("second")
	s.claim("second", 1, nil)
	if got := devices(s.allocated("second")); got[0] == "gpu-3" {
		t.Error("the claim that takes the place of the second one has the device again")
	}
	if got := devices(s.get("first")); got[0] != "gpu-3" {
		t.Errorf("the first claim has %v", got)
	}
	s.noneTwice()
}

// The same on a real node: its plugin prepares the device for one pod only.
func TestANodePreparesADeviceOfTwoClaimsOnce(t *testing.T) {
	s := newSite(t, 0)
	nodes, err := cluster.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{LabelSelector: "eks.amazonaws.com/compute-type=hybrid"})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("want one node with a kubelet, there are %d: %v", len(nodes.Items), err)
	}
	node := nodes.Items[0].Name
	on := func(spec *corev1.PodSpec) {
		spec.NodeName, spec.NodeSelector = node, nil
		spec.Containers[0].Command = []string{"sleep", "infinity"}
	}
	for _, name := range []string{"first", "second"} {
		s.make(claimFor(name, harness.DeviceClass, 1))
		s.give(name, harness.DriverName, node, "gpu-7", time.Now())
	}
	s.pod("first", on, "first")
	s.running("first")
	s.pod("second", on, "second")
	// The plugin waits for 40 s, as after a pod that takes long to stop. Other
	// tests go on meanwhile.
	t.Parallel()
	s.event("second", "FailedPrepareDynamicResources", `device "gpu-7" is still prepared for claim `+s.name+"/first")
	pod, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, "second", metav1.GetOptions{})
	if err != nil || pod.Status.Phase != corev1.PodPending {
		t.Errorf("the second pod is %s: %v", pod.Status.Phase, err)
	}
	// When the first one has ended, it is the second one's turn.
	s.deletePod("first")
	s.running("second")
}

// running waits until the pod runs.
func (s *site) running(pod string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := cluster.WaitPod(ctx, s.name, pod, harness.Running()); err != nil {
		s.t.Fatal(err)
	}
}
