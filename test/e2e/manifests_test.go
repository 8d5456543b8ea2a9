package e2e

import (
	"testing"
)

func TestTheManifestsForRealMachinesAreAccepted(t *testing.T) {
	if _, err := cluster.Kubectl(t.Context(), "apply", "-k", "deployments/manifests", "--dry-run=server"); err != nil {
		t.Error(err)
	}
}
