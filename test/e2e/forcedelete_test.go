package e2e

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestTheNextPodStartsWhenTheContainerOfAForceDeletedPodIsGoneAndNotBefore(t *testing.T) {
	const (
		most = time.Second
		// Machines that run tests are busy, and what kubelet and the container
		// runtime take for a pod counts too. That only makes it longer, so one
		// time of several shows that it can be met.
		tries = 3
	)
	for try := 1; ; try++ {
		took := afterAForcedDeletion(t)
		t.Logf("the next pod's container started %v after the old one was gone", took)
		if took <= most {
			return
		}
		if try == tries {
			t.Fatalf("the next pod's container never started within %v after the old one was gone, in %d tries", most, tries)
		}
	}
}

// afterAForcedDeletion deletes a pod by force and measures from the end of its
// container until that of the next pod starts, which must not be before.
func afterAForcedDeletion(t *testing.T) time.Duration {
	t.Helper()
	const stubborn = 20 * time.Second // the container goes on for this long when it is told to end
	s := newSpace(t, nil)
	lives := watchContainers(s)
	s.template("all", gpus(gpusPerNode))
	pod := newPod("old", "all")
	pod.Spec.TerminationGracePeriodSeconds = ptr.To(int64(3 * stubborn / time.Second))
	pod.Spec.Containers[0].Command = []string{"stubborn", "20"}
	s.create(pod)
	old := harness.ContainerID(s.wait("old", harness.Running()), "work")

	// A kubelet that hears of a forced deletion ends the containers within 2 s.
	// One that was cut off meanwhile, for long enough that its connections are
	// dead, only finds that the pod is no more: its containers then have the
	// whole time that the pod gives them.
	s.disconnect()
	s.forceDelete("old")
	s.pod("next", "all")
	s.wait("next", scheduled())
	s.restart(harness.APIServer)
	connected := time.Now()
	s.connect()
	next := harness.ContainerID(s.wait("next", harness.Running()), "show")

	before := s.life(lives, old, ended)
	after := s.life(lives, next, started)
	if went := before.Ended.Sub(connected); went < stubborn {
		t.Errorf("the old container was gone %v after its node was back: this test needs one that goes on for %v", went, stubborn)
	}
	if !after.Made.After(before.Ended) {
		t.Errorf("the next container was set up at %v, the old one ended at %v: both had the same GPUs", after.Made, before.Ended)
	}
	wantDistinct(t, s.gpus("next", "show", gpusPerNode))
	s.delete("next")
	s.waitGone("next")
	return after.Started.Sub(before.Ended)
}

// scheduled is met when the pod has a node.
func scheduled() harness.PodCondition {
	return harness.PodCondition{Name: "be scheduled", Met: func(pod *corev1.Pod) (bool, error) {
		return pod.Spec.NodeName != "", nil
	}}
}

// forceDelete makes the API forget the pod at once, whatever its containers do.
func (s *space) forceDelete(pod string) {
	s.t.Helper()
	err := cluster.Client.CoreV1().Pods(s.name).Delete(s.ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	if err != nil {
		s.t.Fatalf("deleting pod %s by force: %v", pod, err)
	}
}

// watchContainers notes the lives of containers until the test ends.
func watchContainers(s *space) *harness.Lives {
	s.t.Helper()
	lives, err := cluster.WatchContainers(s.ctx)
	needNode(s.t, err)
	s.t.Cleanup(lives.Stop)
	return lives
}

func ended(life harness.Life) bool   { return !life.Ended.IsZero() }
func started(life harness.Life) bool { return !life.Started.IsZero() }

// life returns what is known of a container, as soon as it is enough.
func (s *space) life(lives *harness.Lives, container string, enough func(harness.Life) bool) harness.Life {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	life, err := lives.Wait(ctx, container, enough)
	if err != nil {
		s.t.Fatal(err)
	}
	return life
}
