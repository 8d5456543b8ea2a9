package monitoring

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// rendered returns the objects that belong to monitoring, by kind and name.
func rendered(t *testing.T, release string, set ...string) (map[string]*unstructured.Unstructured, error) {
	t.Helper()
	args := []string{"template", release, chart, "--namespace", "gpu"}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	var out, errs bytes.Buffer
	command := exec.CommandContext(t.Context(), tool(t, "HELM_BIN"), args...)
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		t.Logf("helm %s: %s", strings.Join(args, " "), errs.String())
		return nil, &refused{errs.String()}
	}
	objects := map[string]*unstructured.Unstructured{}
	for _, document := range strings.Split(out.String(), "\n---\n") {
		o := &unstructured.Unstructured{}
		parse(t, []byte(document), &o.Object)
		named := strings.HasSuffix(o.GetName(), "-dashboard") || strings.HasSuffix(o.GetName(), "-metrics")
		if strings.HasPrefix(o.GetAPIVersion(), "monitoring.coreos.com/") || named {
			objects[o.GetKind()+"/"+o.GetName()] = o
		}
	}
	return objects, nil
}

type refused struct{ why string }

func (r *refused) Error() string { return r.why }

func names(objects map[string]*unstructured.Unstructured) []string {
	var all []string
	for name := range objects {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestWhatTheChartMakes(t *testing.T) {
	registry := []string{"hybrid.registry.enabled=true", "hybrid.registry.existingConfigMap=registries"}
	for name, test := range map[string]struct {
		set  []string
		want []string
	}{
		"nothing by default": {},
		"pod monitors": {
			append(registry, "monitoring.scrape.enabled=true"),
			[]string{"PodMonitor/eks-hybrid-dra-controller", "PodMonitor/eks-hybrid-dra-kubelet-plugin", "PodMonitor/eks-hybrid-dra-registry-trust"},
		},
		"only what runs": {
			[]string{"controller.enabled=false", "webhook.enabled=false", "monitoring.scrape.enabled=true"},
			[]string{"PodMonitor/eks-hybrid-dra-kubelet-plugin"},
		},
		"service monitors": {
			[]string{"monitoring.scrape.enabled=true", "monitoring.scrape.kind=ServiceMonitor"},
			[]string{
				"Service/eks-hybrid-dra-controller-metrics", "Service/eks-hybrid-dra-kubelet-plugin-metrics",
				"ServiceMonitor/eks-hybrid-dra-controller", "ServiceMonitor/eks-hybrid-dra-kubelet-plugin",
			},
		},
		"rules and dashboard": {
			[]string{"monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true"},
			[]string{"ConfigMap/eks-hybrid-dra-dashboard", "PrometheusRule/eks-hybrid-dra"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := rendered(t, "eks-hybrid-dra", test.set...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, names(objects)); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

// TestJobsHaveTheNameOfTheRelease: what monitors call a job, rules and dashboard
// must look for.
func TestJobsHaveTheNameOfTheRelease(t *testing.T) {
	objects, err := rendered(t, "blue", "monitoring.scrape.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true",
		"monitoring.rules.runbooks=https://wiki.example.com/gpu/")
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range []string{"kubelet-plugin", "controller"} {
		job := "blue-eks-hybrid-dra-" + component
		monitor, err := yaml.Marshal(objects["PodMonitor/"+job])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(monitor), "replacement: "+job) {
			t.Errorf("the monitor gives no job %s:\n%s", job, monitor)
		}
		if got, want := strings.Contains(string(monitor), "targetLabel: node"), component != "controller"; got != want {
			t.Errorf("%s gives the label node: %t, want %t", job, got, want)
		}
		// Or the namespace of a DaemonSet or Secret would become the controller's.
		if got, want := strings.Contains(string(monitor), "honorLabels: true"), component == "controller"; got != want {
			t.Errorf("%s keeps the labels that metrics have: %t, want %t", job, got, want)
		}
	}
	rules, err := yaml.Marshal(objects["PrometheusRule/blue-eks-hybrid-dra"].Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	board, _, err := unstructured.NestedString(objects["ConfigMap/blue-eks-hybrid-dra-dashboard"].Object, "data", "eks-hybrid-dra.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	parse(t, []byte(board), &d)
	for what, text := range map[string]string{"rules": string(rules), "dashboard": board} {
		if strings.Contains(text, `="eks-hybrid-dra-kubelet`) || !strings.Contains(text, "blue-eks-hybrid-dra-controller") {
			t.Errorf("%s look for jobs of another release:\n%s", what, text)
		}
		if !strings.Contains(strings.ReplaceAll(text, `\`, ""), `name="eks-hybrid-dra-controller"`) {
			t.Errorf("%s look for another lease than the controller has", what)
		}
	}
	if !strings.Contains(string(rules), "https://wiki.example.com/gpu/EKSHybridDRAPluginDown.md") {
		t.Error("the pages are not where the values say")
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func TestAlertsCanBeLeftOut(t *testing.T) {
	objects, err := rendered(t, "eks-hybrid-dra", "monitoring.rules.enabled=true", "monitoring.rules.disabled={EKSHybridDRAClaimsWait}")
	if err != nil {
		t.Fatal(err)
	}
	content, err := yaml.Marshal(objects["PrometheusRule/eks-hybrid-dra"].Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	parse(t, content, &file)
	var groups []string
	for _, g := range file.Groups {
		groups = append(groups, g.Name)
		for _, r := range g.Rules {
			if r.Alert == "EKSHybridDRAClaimsWait" {
				t.Error("the alert is there all the same")
			}
		}
	}
	// Nobody runs registry-trust.
	if diff := cmp.Diff([]string{"eks-hybrid-dra-nodes", "eks-hybrid-dra-controller"}, groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	_, err = rendered(t, "eks-hybrid-dra", "monitoring.rules.enabled=true", "monitoring.rules.disabled={ClaimsWait}")
	if err == nil || !strings.Contains(err.Error(), `no alert "ClaimsWait"`) || !strings.Contains(err.Error(), "EKSHybridDRAClaimsWait") {
		t.Errorf("want an error that names the alerts that there are, got %v", err)
	}
}
