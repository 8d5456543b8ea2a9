package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/cniaffinity"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/pullsecret"
)

func TestWhatHybridNodesTellIsDocumented(t *testing.T) {
	page := read(t, "hybrid-nodes.md")
	registry := &names{}
	if _, err := cniaffinity.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := pullsecret.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(registry.all, "eks_hybrid_dra_hybrid_config_valid") {
		if !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("hybrid-nodes.md lacks the metric %s", name)
		}
	}
	reasons := []string{hybrid.EventConfig}
	for _, reason := range cniaffinity.Reasons() {
		reasons = append(reasons, string(reason))
	}
	for _, reason := range pullsecret.Reasons() {
		reasons = append(reasons, string(reason))
	}
	for _, reason := range reasons {
		if !strings.Contains(page, "| `"+reason+"` |") {
			t.Errorf("hybrid-nodes.md lacks the reason %s", reason)
		}
	}
}

func TestPresetsAreDocumented(t *testing.T) {
	page := read(t, "hybrid-nodes.md")
	for _, preset := range v1alpha1.Presets() {
		config := &v1alpha1.HybridConfig{CNIAffinity: &v1alpha1.CNIAffinityConfig{DaemonSets: []v1alpha1.CNIDaemonSets{{Preset: preset}}}}
		config.Default()
		row := regexp.MustCompile("(?m)^\\| `" + preset + "` \\|.*$").FindString(page)
		for _, set := range config.CNIAffinity.DaemonSets[0].Expand() {
			if want := fmt.Sprintf("`%s/%s`", set.Namespace, set.Name); !strings.Contains(row, want) || !strings.HasSuffix(row, "| `"+string(set.Nodes)+"` |") {
				t.Errorf("the row of preset %s lacks %s on %s nodes: %q", preset, want, set.Nodes, row)
			}
		}
	}
}

// The file at the end of the page is one that the controller takes.
func TestHybridConfigOnThePage(t *testing.T) {
	page := read(t, "hybrid-nodes.md")
	files := regexp.MustCompile("(?s)```yaml\n(apiVersion: .*?)```").FindAllStringSubmatch(page, -1)
	if len(files) != 1 {
		t.Fatalf("the page has %d files", len(files))
	}
	if _, err := v1alpha1.DecodeHybridConfig([]byte(files[0][1])); err != nil {
		t.Error(err)
	}
}
