package e2e

import (
	"context"

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
