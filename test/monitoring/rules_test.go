package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	chart     = "../../deployments/helm/eks-hybrid-dra"
	rulesFile = chart + "/files/rules.yaml"
	testsFile = "testdata/rules.test.yaml"
	runbooks  = "../../docs/runbooks"
)

type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type ruleFile struct {
	Groups []group `json:"groups"`
}

func parse(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parse(t, content, into)
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var file ruleFile
	load(t, rulesFile, &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no rules", rulesFile)
	}
	return all
}

// tool returns the path of a program that make has built.
func tool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("%s is not set: make test-monitoring builds the program and sets it", variable)
	}
	return path
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, "PROMTOOL_BIN"), args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolTakesTheRules(t *testing.T) { promtool(t, "check", "rules", rulesFile) }

func TestAlertsFireWhenTheyShouldAndSayWhatIsTrue(t *testing.T) {
	promtool(t, "test", "rules", testsFile)
}

// TestEachAlertIsTried looks for a moment at which it fires, and one at which it
// does not.
func TestEachAlertIsTried(t *testing.T) {
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	load(t, testsFile, &file)
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, moment := range test.AlertRuleTest {
			if len(moment.ExpAlerts) > 0 {
				fires[moment.Alertname] = true
			} else {
				rests[moment.Alertname] = true
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !rests[a.Alert] {
			t.Errorf("%s: want a test in which %s fires (there is one: %t) and one in which it does not (%t)", testsFile, a.Alert, fires[a.Alert], rests[a.Alert])
		}
	}
}

func TestEachAlertAsksForMetricsThatThereAre(t *testing.T) {
	metrics := known(t)
	for _, a := range alerts(t) {
		metrics.check(t, a.Alert, a.Expr)
		// What the text looks up, too.
		for _, m := range regexp.MustCompile(`printf "((?:[^"\\]|\\.)*)"[^|}]*\| query`).FindAllStringSubmatch(a.Annotations["description"], -1) {
			metrics.check(t, a.Alert+", description", strings.ReplaceAll(m[1], "%q", `""`))
		}
	}
}

func TestEachAlertHasASeverityAndAPage(t *testing.T) {
	var pages []string
	for _, a := range alerts(t) {
		page := a.Alert + ".md"
		pages = append(pages, page)
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q, want critical or warning", a.Alert, s)
		}
		for _, name := range []string{"summary", "description"} {
			if a.Annotations[name] == "" {
				t.Errorf("%s has no %s", a.Alert, name)
			}
		}
		if !strings.HasSuffix(a.Annotations["runbook_url"], "/docs/runbooks/"+page) {
			t.Errorf("%s: runbook_url is %q, want the page %s", a.Alert, a.Annotations["runbook_url"], page)
		}
		content, err := os.ReadFile(filepath.Join(runbooks, page))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range []string{"# " + a.Alert + "\n", "Severity: " + a.Labels["severity"], "\n## What it means\n", "\n## How to look\n", "\n## How to mend it\n"} {
			if !strings.Contains(string(content), want) {
				t.Errorf("%s lacks %q", page, want)
			}
		}
	}
	entries, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "README.md" && !slices.Contains(pages, entry.Name()) {
			t.Errorf("docs/runbooks/%s is of no alert", entry.Name())
		}
	}
	index, err := os.ReadFile(filepath.Join(runbooks, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if !strings.Contains(string(index), "("+page+")") {
			t.Errorf("docs/runbooks/README.md does not name %s", page)
		}
	}
}
