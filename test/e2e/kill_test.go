package e2e

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestNoPodFailsAndNothingIsLeftWhenThePluginIsKilledAgainAndAgain(t *testing.T) {
	s := newSpace(t, nil)
	lives := watchContainers(s)
	seed := uint64(time.Now().UnixNano())
	t.Logf("random moments by the seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	node := s.keepBusy(gpusPerNode)
	enough := time.Now().Add(soak(t, 0))
	kills := 0
	for ; kills < 10 || time.Now().Before(enough); kills++ {
		s.pause(time.Duration(random.Int64N(int64(4 * time.Second))))
		killed := s.killPlugin()
		if kills%2 == 0 {
			// Kubelet waits longer and longer before it starts a container
			// again that has crashed before. A new pod starts at once.
			s.deletePlugin()
		}
		s.waitPluginRuns(killed)
	}
	pods := node.end(lives)
	t.Logf("%d pods came and went while the plugin was killed %d times", pods, kills)
	s.waitDriver()
	wantNothingLeft(t)
}

// killPlugin kills all containers of the driver and returns their ids.
func (s *space) killPlugin() []string {
	s.t.Helper()
	ids, err := cluster.RunningContainers(s.ctx, harness.Namespace, "", harness.PluginContainer)
	needNode(s.t, err)
	for _, id := range ids {
		if err := cluster.KillContainer(s.ctx, id); err != nil {
			s.t.Fatal(err)
		}
	}
	return ids
}

// deletePlugin deletes the driver's pods, which their DaemonSet replaces.
func (s *space) deletePlugin() {
	s.t.Helper()
	pods, err := cluster.PluginPods(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range pods {
		err := cluster.Client.CoreV1().Pods(pod.Namespace).Delete(s.ctx, pod.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			s.t.Fatalf("deleting pod %s: %v", pod.Name, err)
		}
	}
}

// waitPluginRuns returns when a container of the driver runs that was not
// killed.
func (s *space) waitPluginRuns(killed []string) {
	s.t.Helper()
	eventually(s.t, "running again", func() error {
		ids, err := cluster.RunningContainers(s.ctx, harness.Namespace, "", harness.PluginContainer)
		if err == nil && !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(killed, id) }) {
			err = errors.New("the driver does not run")
		}
		return err
	})
}
