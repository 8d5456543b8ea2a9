package apiclient

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestErrorsNameTheFlag(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	absent := filepath.Join(t.TempDir(), "absent")
	for kubeconfig, want := range map[string]string{
		"":     "outside a pod set --kubeconfig",
		absent: `--kubeconfig "` + absent + `"`,
	} {
		if _, err := Config(kubeconfig, "test"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kubeconfig %q: want %q, got %v", kubeconfig, want, err)
		}
	}
}
