package e2e

import (
	"context"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestNoGPUIsGivenTwiceWhereTheDriverIsInstalledTwice(t *testing.T) {
	const (
		second    = "test/e2e/testdata/second-plugin"
		namespace = "eks-hybrid-dra-second"
	)
	s := newSpace(t, nil)
	lives := watchContainers(s)
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	node := s.keepBusy(gpusPerNode)
	remove := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
		defer cancel()
		if _, err := cluster.Kubectl(ctx, "delete", "-k", second, "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(remove)

	node.await(gpusPerNode)
	if err := cluster.ApplyKustomization(s.ctx, second); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.WaitDaemonSet(ctx, namespace, harness.Plugin+"-second"); err != nil {
		t.Fatal(err)
	}
	node.await(2 * gpusPerNode)
	remove()
	node.await(2 * gpusPerNode)
	pods := node.end(lives)

	t.Logf("%d pods came and went", pods)
	s.waitDevices()
	wantSameContainers(t, before, s.wait("user", harness.Running()))
	s.delete("user")
	s.waitGone("user")
	wantNothingLeft(t)
}
