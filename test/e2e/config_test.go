package e2e

import (
	"context"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestAnUnknownFieldInAClaimsConfigurationIsNamedInAnEventOfThePod(t *testing.T) {
	s := newSpace(t, unchecked())
	s.template("misspelt", oneGPUConfigured(`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig","sharng":{}}`))
	s.pod("misspelt", "misspelt")
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := cluster.WaitEvent(ctx, s.name, "misspelt", `unknown field "sharng"`); err != nil {
		t.Error(err)
	}
}

func TestAClaimWithADefaultConfigurationWorks(t *testing.T) {
	s := newSpace(t, nil)
	s.template("default", oneGPUConfigured(`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig"}`))
	s.pod("default", "default")
	s.wait("default", harness.Running())
	s.gpus("default", "show", 1)
}
