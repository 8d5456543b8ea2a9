package e2e

import (
	"context"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// disconnect cuts the node off from its control plane, until connect or the end
// of the test.
func (s *space) disconnect() {
	s.t.Helper()
	needNode(s.t, cluster.Disconnect(s.ctx))
	s.t.Cleanup(func() {
		if err := cluster.Connect(s.ctx); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *space) connect() {
	s.t.Helper()
	if err := cluster.Connect(s.ctx); err != nil {
		s.t.Fatal(err)
	}
}

// restart ends a component and starts it again.
func (s *space) restart(component harness.Component) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	needNode(s.t, cluster.Restart(ctx, component))
}

func TestTheNodeRunsTheVersionOfKubernetesThatWasAskedFor(t *testing.T) {
	want := os.Getenv("E2E_KUBERNETES_VERSION")
	if want == "" {
		t.Skip("E2E_KUBERNETES_VERSION asks for no version")
	}
	nodes, err := cluster.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes.Items {
		if got := node.Status.NodeInfo.KubeletVersion; got != want {
			t.Errorf("node %s runs Kubernetes %s, want %s", node.Name, got, want)
		}
	}
	server, err := cluster.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if server.GitVersion != want {
		t.Errorf("the API server is of Kubernetes %s, want %s", server.GitVersion, want)
	}
}
