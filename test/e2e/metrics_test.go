package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestMetricsTellWhatIsPublishedAndPrepared(t *testing.T) {
	s := newSpace(t, nil)
	s.template("two", gpus(2))
	s.pod("user", "two")
	s.wait("user", harness.Running())

	text := pluginSays(t, "/metrics")
	for _, want := range []string{
		`eks_hybrid_dra_published_devices{kind="gpu"} 8`,
		`eks_hybrid_dra_prepared_devices{family="gpu"} 2`,
		`eks_hybrid_dra_prepare_duration_seconds_count{outcome="success"}`,
		`eks_hybrid_dra_build_info{`,
		`process_resident_memory_bytes`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics do not have %s; ours are:\n%s", want, ours(text))
		}
	}
}

func TestTheProbesAnswer(t *testing.T) {
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := strings.TrimSpace(pluginSays(t, path)); got != "ok" {
			t.Errorf("%s answers %q, want ok", path, got)
		}
	}
}

// pluginSays asks the plugin's HTTP endpoint through the API server.
func pluginSays(t *testing.T, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pod, err := cluster.PluginPod(ctx)
	if err != nil {
		t.Fatal(err)
	}
	text, err := cluster.Client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, "9464", path, nil).DoRaw(ctx)
	if err != nil {
		t.Fatalf("getting %s of pod %s: %v", path, pod.Name, err)
	}
	return string(text)
}

// ours are the lines of the driver's own metrics.
func ours(metrics string) string {
	var lines []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "eks_hybrid_dra_") && !strings.Contains(line, "_bucket") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
