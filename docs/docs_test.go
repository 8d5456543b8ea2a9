// Package docs checks that the documents say what the programs do.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
)

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestEveryFlagIsDocumented(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), "go", "run", "../cmd/kubelet-plugin", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	page := read(t, "configuration.md")
	var flags []string
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		flags = append(flags, m[1])
	}
	if len(flags) == 0 {
		t.Fatalf("no flag found in the help:\n%s", help)
	}
	for _, flag := range flags {
		// The page says that the help lists the flags of all Kubernetes
		// components.
		if strings.HasPrefix(flag, "log-") || flag == "help" || flag == "v" {
			continue
		}
		if !strings.Contains(page, "`--"+flag+"`") {
			t.Errorf("configuration.md lacks the flag --%s", flag)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(flags, m[1]) {
			t.Errorf("configuration.md has the flag --%s, the program does not", m[1])
		}
	}
}

// names is a registerer that notes what metrics are called.
type names struct {
	prometheus.Registerer
	all []string
}

func (n *names) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		name, _, _ := strings.Cut(strings.TrimPrefix(desc.String(), `Desc{fqName: "`), `"`)
		n.all = append(n.all, name)
	}
	return nil
}

func TestEveryMetricIsDocumented(t *testing.T) {
	registry := &names{}
	if _, err := driver.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	page := read(t, "configuration.md")
	if len(registry.all) == 0 {
		t.Fatal("the driver registers no metric")
	}
	for _, name := range registry.all {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("configuration.md lacks the metric %s", name)
		}
	}
}

// TestEveryReasonIsDocumented takes the reasons from the code, where each is a
// constant.
func TestEveryReasonIsDocumented(t *testing.T) {
	pages := read(t, "configuration.md") + read(t, "sriov.md")
	for _, file := range []string{"pkg/gpu/errors.go", "pkg/sriov/problems.go", "pkg/sriov/nic/scan.go"} {
		// Those of a driver that is not there stand in the log alone.
		code, _, _ := strings.Cut(read(t, filepath.Join("..", file)), "DriverError")
		reasons := regexp.MustCompile(`(?m)^\tReason\w+ += "(\w+)"`).FindAllStringSubmatch(code, -1)
		if len(reasons) == 0 {
			t.Errorf("%s has no reasons", file)
		}
		for _, reason := range reasons {
			if !strings.Contains(pages, "| `"+reason[1]+"` |") {
				t.Errorf("configuration.md and sriov.md lack the reason %s of %s", reason[1], file)
			}
		}
	}
}

// TestEveryAttributeOfVFsIsDocumented takes the attributes from the code, as the
// reasons above.
func TestEveryAttributeOfVFsIsDocumented(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "configuration.md"), "\n### VFs\n")
	table, _, _ = strings.Cut(table, "\n### ")
	for _, file := range []string{"devices.go", "edits.go"} {
		names := regexp.MustCompile(`resourceapi.QualifiedName = "(\w+)"`).FindAllStringSubmatch(read(t, filepath.Join("..", "pkg", "sriov", file)), -1)
		if len(names) == 0 {
			t.Errorf("%s has no attributes", file)
		}
		for _, name := range names {
			page := table
			if file == "edits.go" { // those of the metadata file alone
				page = read(t, "configuration.md")
			}
			if !strings.Contains(page, "`"+name[1]+"`") {
				t.Errorf("configuration.md lacks the attribute %s", name[1])
			}
		}
	}
}

func TestEveryFieldOfVFsIsDocumented(t *testing.T) {
	page := read(t, "sriov.md")
	for _, kind := range []any{v1alpha1.VfConfig{}, v1alpha1.VFSelector{}} {
		for field := range reflect.TypeOf(kind).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && !strings.Contains(page, "`"+name+"`") && !strings.Contains(page, "`"+name+": ") {
				t.Errorf("sriov.md lacks the field %s of %T", name, kind)
			}
		}
	}
}

// TestEveryTestThatIsNamedExists looks for the tests that what-happens-when.md
// names.
func TestEveryTestThatIsNamedExists(t *testing.T) {
	var code strings.Builder
	for _, pattern := range []string{"../test/*/*_test.go", "../pkg/*/*_test.go", "../pkg/*/*/*_test.go", "../cmd/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code.WriteString(read(t, file))
		}
	}
	for _, test := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(read(t, "what-happens-when.md"), -1) {
		if !strings.Contains(code.String(), "func "+test[1]+"(") {
			t.Errorf("what-happens-when.md names the test %s, which is not there", test[1])
		}
	}
}

func TestEveryKindOfDeviceIsDocumented(t *testing.T) {
	for page, row := range map[string]string{"configuration.md": "| `kinds` |", "monitoring.md": "| `kind` |"} {
		_, line, found := strings.Cut(read(t, page), row)
		if !found {
			t.Fatalf("%s lacks the row %s", page, row)
		}
		line, _, _ = strings.Cut(line, "\n")
		for _, kind := range device.Kinds() {
			if !strings.Contains(line, "`"+string(kind)+"`") {
				t.Errorf("%s lacks the kind %s in the row %s", page, kind, row)
			}
		}
	}
}

func TestEveryExampleIsListed(t *testing.T) {
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples found: %v", err)
	}
	page := read(t, "../README.md")
	for _, file := range examples {
		if link := "(examples/" + filepath.Base(file) + ")"; !strings.Contains(page, link) {
			t.Errorf("README.md lacks a link %s", link)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "runbooks/*.md", "../*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}

// TestReadmeShowsTheExample makes sure that what README.md shows is what the
// end-to-end tests run, but for the toleration that only some nodes need.
func TestReadmeShowsTheExample(t *testing.T) {
	_, after, found := strings.Cut(read(t, "../README.md"), "## Use it\n\n```yaml\n")
	shown, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("README.md shows no example under \"Use it\"")
	}
	wantClaim, wantPod := parse(t, read(t, "../examples/one-gpu.yaml"))
	gotClaim, gotPod := parse(t, shown)
	if diff := cmp.Diff(wantClaim, gotClaim); diff != "" {
		t.Errorf("claim template in README.md (-want +got):\n%s", diff)
	}
	wantPod.Spec.Tolerations = nil
	if diff := cmp.Diff(wantPod, gotPod); diff != "" {
		t.Errorf("pod in README.md (-want +got):\n%s", diff)
	}
}

func parse(t *testing.T, text string) (claim resourceapi.ResourceClaimTemplate, pod corev1.Pod) {
	t.Helper()
	first, second, found := strings.Cut(text, "\n---\n")
	if !found {
		t.Fatalf("want two objects, got\n%s", text)
	}
	if err := yaml.UnmarshalStrict([]byte(first), &claim); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(second), &pod); err != nil {
		t.Fatal(err)
	}
	return claim, pod
}
