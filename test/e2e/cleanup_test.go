package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestNothingIsLeftOnTheNodeWhenAllPodsAreGone(t *testing.T) {
	s := newSpace(t, nil)
	s.template("four", gpus(4))
	s.template("one", gpus(1))
	pods := map[string]string{"a": "four", "b": "one", "c": "one"}
	for pod, template := range pods {
		s.pod(pod, template)
	}
	for pod := range pods {
		s.wait(pod, harness.Running())
	}
	if left := leftOnNode(t); len(left) == 0 {
		t.Fatal("there are no files of claims while pods run: this test looks in the wrong place")
	}
	for pod := range pods {
		s.delete(pod)
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.WaitPodsGone(ctx, s.name); err != nil {
		t.Fatal(err)
	}
	if left := leftOnNode(t); len(left) > 0 {
		t.Errorf("files are left on the node:\n%s", strings.Join(left, "\n"))
	}
}

// needNode ends the test when the node cannot be reached as it needs to be.
func needNode(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, harness.ErrNoNode) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
