package docs

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust"
)

func TestEveryFlagOfRegistryTrustIsDocumented(t *testing.T) {
	page := read(t, "registry.md")
	_, table, _ := strings.Cut(page, "\n## Flags\n")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)`").FindAllStringSubmatch(table, -1) {
		documented = append(documented, m[1])
	}
	flags := []string{}
	for _, args := range [][]string{{"--help"}, {"remove", "--help"}, {"uninstall", "--help"}} {
		help, err := exec.CommandContext(t.Context(), "go", append([]string{"run", "../cmd/registry-trust"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, help)
		}
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
			if general := strings.HasPrefix(m[1], "log") || slices.Contains([]string{"help", "v", "version", "vmodule"}, m[1]); !general && !slices.Contains(flags, m[1]) {
				flags = append(flags, m[1])
			}
		}
	}
	slices.Sort(flags)
	slices.Sort(documented)
	if !slices.Equal(flags, documented) {
		t.Errorf("registry.md has the flags %v, the program %v", documented, flags)
	}
}

func TestEveryMetricOfRegistryTrustIsDocumented(t *testing.T) {
	registry := &names{}
	if _, err := registrytrust.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	page := read(t, "registry.md")
	for _, name := range registry.all {
		if !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("registry.md lacks the metric %s", name)
		}
	}
}

func TestEveryReasonOfRegistryTrustIsDocumented(t *testing.T) {
	page := read(t, "registry.md")
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "(\w+)"`).FindAllStringSubmatch(read(t, "../pkg/registrytrust/problem.go"), -1)
	if len(reasons) == 0 {
		t.Fatal("no reasons found")
	}
	for _, reason := range reasons {
		if !strings.Contains(page, "| `"+reason[1]+"` |") {
			t.Errorf("registry.md lacks the reason %s", reason[1])
		}
	}
}
