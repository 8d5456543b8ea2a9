package e2e

import (
	"context"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestEveryPodGetsItsGPUDuringAnUpgradeAndADowngrade(t *testing.T) {
	const (
		image = "localhost/eks-hybrid-dra:dev"
		other = "localhost/eks-hybrid-dra:other-release"
	)
	s := newSpace(t, nil)
	needNode(t, cluster.TagImage(s.ctx, image, other))
	lives := watchContainers(s)
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	absence := measureAbsence(s)
	t.Cleanup(func() {
		if t.Failed() { // whatever the test did, the next one finds the driver as usual
			s.setImage(image)
		}
	})

	node := s.keepBusy(4)
	node.await(2)
	s.roll(func() { s.setImage(other) })
	node.await(8)
	s.roll(func() { s.setImage(image) })
	node.await(8)
	pods := node.end(lives)

	t.Logf("%d pods came and went", pods)
	if absent := absence.Stop(); absent > 0 {
		t.Errorf("the API was without the node's devices for %v", absent)
	}
	wantSameContainers(t, before, s.wait("user", harness.Running()))
	s.delete("user")
	s.waitGone("user")
	wantNothingLeft(t)
}

// setImage has the driver's pods replaced by such with another image.
func (s *space) setImage(image string) {
	s.t.Helper()
	_, err := cluster.Kubectl(context.WithoutCancel(s.ctx), "set", "image", "-n", harness.Namespace, "daemonset/"+harness.Plugin, harness.PluginContainer+"="+image)
	if err != nil {
		s.t.Error(err)
	}
}

// roll has the driver's pods replaced and returns when that is done.
func (s *space) roll(change func()) {
	s.t.Helper()
	old, err := cluster.PluginPod(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	change()
	waitForNewPlugin(s, old.UID)
	s.waitDriver()
}
