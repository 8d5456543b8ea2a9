package e2e

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// soak is how long tests go on that SOAK_MINUTES makes longer.
func soak(t *testing.T, usually time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK_MINUTES")
	if text == "" {
		return usually
	}
	minutes, err := strconv.ParseFloat(text, 64)
	if err != nil || minutes <= 0 {
		t.Fatalf("SOAK_MINUTES is %q, want the number of minutes", text)
	}
	return time.Duration(minutes * float64(time.Minute))
}

func TestANodeThatIsCutOffGoesOnAndAgreesWithItsControlPlaneAfterwards(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	for _, name := range []string{"steady", "crashing", "ending", "forgotten"} {
		pod := newPod(name, "one")
		// As for the workloads of a site that must outlive a failed line: by
		// default a cluster evicts the pods of a node after 5 minutes.
		pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		if name == "ending" {
			pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		}
		s.create(pod)
	}
	steady := s.wait("steady", harness.Running())
	for _, name := range []string{"crashing", "ending", "forgotten"} {
		s.wait(name, harness.Running())
	}
	used := s.gpus("crashing", "show", 1)
	ending := s.claim("ending").UID
	forgotten := s.claim("forgotten").UID
	names := deviceNames(t)
	before := held(t)
	absence := measureAbsence(s)

	s.disconnect()
	back := time.Now().Add(soak(t, 2*time.Minute))
	// The cluster forgets a pod and its claim. The node cannot know.
	s.forceDelete("forgotten")
	for crashes := 0; time.Now().Add(crashPause(crashes)).Before(back); crashes++ {
		plugin := s.kill(harness.Namespace, "", harness.PluginContainer)
		crashing := s.kill(s.name, "crashing", "work")
		s.waitReplaced(harness.Namespace, "", harness.PluginContainer, plugin)
		s.waitReplaced(s.name, "crashing", "work", crashing)
		if crashes == 0 {
			s.stopContainer("ending")
			waitReleased(t, ending)
			delete(before, ending)
		}
		wantHeld(t, before)
		if diff := cmp.Diff(used, harness.GPUs(s.runInContainer("crashing", "nvidia-smi", "-L"))); diff != "" {
			t.Errorf("GPUs of the container that crashed (-before +after):\n%s", diff)
		}
	}
	for time.Now().Before(back) {
		wantHeld(t, before)
		s.pause(2 * time.Second)
	}
	s.connect()

	s.wait("ending", harness.Succeeded())
	waitReleased(t, forgotten)
	s.pod("new", "one")
	s.wait("new", harness.Running())
	s.gpus("new", "show", 1)
	wantSameContainers(t, steady, s.wait("steady", harness.Running()))
	s.wait("crashing", harness.Running())
	wantAgreement(t)
	if diff := cmp.Diff(names, deviceNames(t)); diff != "" {
		t.Errorf("devices (-before +after):\n%s", diff)
	}
	// Kubelet deletes the slices of a plugin that was away for 30 s, here between
	// two crashes, and can only do so when it is back.
	absent := absence.Stop()
	t.Logf("the API was without the node's devices for %v", absent)
	if most := 20 * time.Second; absent > most {
		t.Errorf("the API was without the node's devices for %v, want at most %v", absent, most)
	}
	for _, name := range []string{"steady", "crashing", "ending", "new"} {
		s.delete(name)
	}
	s.template("all", gpus(gpusPerNode))
	s.pod("all", "all")
	s.wait("all", harness.Running())
	wantDistinct(t, s.gpus("all", "show", gpusPerNode))
	s.delete("all")
	s.waitGone("all")
	wantNothingLeft(t)
}

// wantHeld fails the test if a claim has something else than before.
func wantHeld(t *testing.T, before map[types.UID][]string) {
	t.Helper()
	if diff := cmp.Diff(before, held(t)); diff != "" {
		t.Fatalf("what claims have on the node changed (-before +now):\n%s", diff)
	}
}

// waitReleased waits until a claim has nothing on the node.
func waitReleased(t *testing.T, claim types.UID) {
	t.Helper()
	eventually(t, "released", func() error {
		if files := held(t)[claim]; len(files) > 0 {
			return fmt.Errorf("claim %s still has %v", claim, files)
		}
		return nil
	})
}

// crashPause is how long kubelet waits before it starts a container again that
// crashed so often before.
func crashPause(crashes int) time.Duration {
	const first, most = 10 * time.Second, 5 * time.Minute
	if crashes == 0 {
		return 0
	}
	return min(first<<min(crashes-1, 10), most)
}

// kill kills the one running container of that name behind kubelet's back, and
// returns what it was called.
func (s *space) kill(namespace, pod, container string) string {
	s.t.Helper()
	id := s.container(namespace, pod, container)
	if err := cluster.KillContainer(s.ctx, id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// waitReplaced returns when kubelet has started the container again that was
// killed.
func (s *space) waitReplaced(namespace, pod, container, killed string) {
	s.t.Helper()
	eventuallyWithin(s.t, crashPause(math.MaxInt)+patience, "started again", func() error {
		now, err := cluster.RunningContainers(s.ctx, namespace, pod, container)
		if err == nil && (len(now) == 0 || slices.Contains(now, killed)) {
			err = fmt.Errorf("container %s of %s/%s was not replaced", container, namespace, pod)
		}
		return err
	})
}

// container returns the id of the one running container of that name.
func (s *space) container(namespace, pod, container string) string {
	s.t.Helper()
	ids, err := cluster.RunningContainers(s.ctx, namespace, pod, container)
	needNode(s.t, err)
	if len(ids) != 1 {
		s.t.Fatalf("%d containers %s of %s/%s run on the node, want 1", len(ids), container, namespace, pod)
	}
	return ids[0]
}

// stopContainer has the pod's container "work" end well.
func (s *space) stopContainer(pod string) {
	s.t.Helper()
	if err := cluster.StopContainer(s.ctx, s.container(s.name, pod, "work")); err != nil {
		s.t.Fatal(err)
	}
}

// runInContainer runs a program in the pod's container "work".
func (s *space) runInContainer(pod string, program ...string) string {
	s.t.Helper()
	out, err := cluster.RunInContainer(s.ctx, s.container(s.name, pod, "work"), program...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// pause lets some time pass in which nothing should happen.
func (s *space) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.t.Context().Done():
	}
}
