package e2e

import (
	"context"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// wantTheOtherNUMANode fails the test unless kubelet heeds the advice which of the
// free GPUs it is to take: a pod with four has those of the NUMA node on which no
// GPU is used. Chance would choose so once in 35 times, and twice in a row hardly.
func (s *space) wantTheOtherNUMANode(books *gpuBooks, numaNodes map[string]string, used string) {
	s.t.Helper()
	var want []string
	for uuid, node := range numaNodes {
		if node != numaNodes[used] {
			want = append(want, uuid)
		}
	}
	slices.Sort(want)
	for range 2 {
		s.create(resourcePod("four", 4))
		got := books.enter(s.wait("four", harness.Running()), 4)
		if slices.Sort(got); !slices.Equal(got, want) {
			s.t.Errorf("the pod has the GPUs %v, want %v, all on one NUMA node", got, want)
		}
		s.delete("four")
		s.waitGone("four")
	}
}

// numaNodes returns the NUMA nodes of the published GPUs, by their UUIDs.
func numaNodes(t *testing.T) map[string]string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]string{}
	for _, d := range devices {
		nodes[value(d.Attributes["uuid"])] = value(d.Attributes["resource.kubernetes.io/numaNode"])
	}
	return nodes
}

// extendedClass makes a DeviceClass that serves what asks for GPUs as an extended
// resource, until the test ends, if this Kubernetes knows such classes.
func (s *space) extendedClass() bool {
	s.t.Helper()
	if !keepsTaintsAndTellsHealth(s.t) { // that is, of 1.36 or newer
		return false
	}
	classes := cluster.Client.ResourceV1().DeviceClasses()
	class := &resourceapi.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: "e2e-extended"},
		Spec: resourceapi.DeviceClassSpec{
			Selectors:            selectors([]string{"device.driver == 'eks-hybrid-dra' && device.attributes['eks-hybrid-dra'].type == 'gpu'"}),
			ExtendedResourceName: ptr.To(gpuResource),
		},
	}
	if _, err := classes.Create(s.ctx, class, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := classes.Delete(context.Background(), class.Name, metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	return true
}

// wantExampleByClaim fails the test unless the guide's pod gets its GPU by a claim
// that was made for it.
func (s *space) wantExampleByClaim() {
	s.t.Helper()
	const name = "device-plugin-gpu"
	if err := cluster.Apply(s.ctx, s.name, "examples/"+name+".yaml"); err != nil {
		s.t.Fatal(err)
	}
	pod := s.wait(name, harness.Succeeded())
	s.gpus(name, "cuda", 1)
	if pod.Status.ExtendedResourceClaimStatus == nil {
		s.t.Error("the pod got its GPU without a claim")
	}
}
