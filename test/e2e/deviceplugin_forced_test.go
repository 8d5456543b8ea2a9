package e2e

import (
	"slices"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Kubelet takes the devices of a pod that was deleted by force for free while its
// containers run on.
func TestTheNextPodGetsTheGPUsOfAForceDeletedPodWhenItsContainerIsGone(t *testing.T) {
	s := newSpace(t, nil)
	s.needDevicePlugin()
	books := s.openBooks()
	s.configure(servesGPUs)
	t.Cleanup(s.endPods)
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	old := resourcePod("old", gpusPerNode)
	old.Spec.Containers[0].Command = []string{"stubborn", "20"}
	s.create(old)
	first := books.enter(s.wait("old", harness.Running()), gpusPerNode)
	s.until("noted who has the GPUs", func() error {
		_, err := cluster.OnNode(s.ctx, "sh", "-c", "grep -l "+s.name+"/old "+dataDir+"/devices/*.json")
		return err
	})

	s.create(resourcePod("next", gpusPerNode))
	s.wait("next", harness.Unschedulable())
	s.forceDelete("old")
	second := books.enter(s.wait("next", harness.Running()), gpusPerNode)
	slices.Sort(first)
	if slices.Sort(second); !slices.Equal(first, second) {
		t.Errorf("the next pod has the GPUs %v, want %v", second, first)
	}
	books.check()
}
