package controller

import (
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/explain"
)

// An API server that keeps no taints, as before Kubernetes 1.36, cannot tell
// kube-scheduler which devices are the controller's. So the controller gives away
// none, says so, and plain claims go on as they are.
func TestAnAPIServerThatKeepsNoTaints(t *testing.T) {
	t.Parallel()
	s := newSiteAnywhere(t, 1)
	if s.keepsTaints() {
		t.Skip("this version of Kubernetes keeps the taints of devices")
	}
	s.watched()
	s.claim("managed", 1, nil)
	s.gang("train", 2, 0, 2, 1)
	const why = "Kubernetes 1.36 or later keeps the taint that marks them"
	s.event("managed", explain.ReasonImpossible, why)
	s.event("train-1", explain.ReasonImpossible, why)
	s.make(claimFor("plain", s.plain, 1))
	s.pod("p", nil, "plain")
	s.bound("p")
	if names := s.withDevices(); strings.Join(names, " ") != "plain" {
		t.Errorf("allocated: %v", names)
	}
}
