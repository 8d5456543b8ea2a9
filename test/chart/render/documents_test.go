package render

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/containerdconfig"
)

func document(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// block returns the block of YAML in README.md that begins so.
func block(t *testing.T, begin string) string {
	t.Helper()
	_, rest, found := strings.Cut(document(t, "README.md"), "```yaml\n"+begin)
	content, _, ends := strings.Cut(rest, "```\n")
	if !found || !ends {
		t.Fatalf("README.md has no block of YAML that begins with %q", begin)
	}
	return begin + content
}

// What README.md gives to nodeadm lets containerd do what the driver and
// registry-trust need, and leaves its default runtime alone.
func TestNodeConfigOfTheQuickStart(t *testing.T) {
	var node struct {
		Spec struct {
			Kubelet    struct{ Flags []string }
			Containerd struct{ Config string }
		}
	}
	if err := yaml.Unmarshal([]byte(block(t, "apiVersion: node.eks.aws/v1alpha1\n")), &node); err != nil {
		t.Fatal(err)
	}
	const taint = "--register-with-taints=nvidia.com/gpu=present:NoSchedule"
	if !slices.Contains(node.Spec.Kubelet.Flags, taint) {
		t.Errorf("kubelet's flags are %q, want %s among them", node.Spec.Kubelet.Flags, taint)
	}
	config := node.Spec.Containerd.Config
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if finding := containerdconfig.Look(file, "/etc/containerd/certs.d"); finding.State != containerdconfig.Set {
		t.Errorf("registry-trust says of it: %s", finding.Message)
	}
	if !strings.Contains(config, "enable_cdi = true") || strings.Contains(config, "default_runtime_name") {
		t.Errorf("containerd's configuration is\n%s", config)
	}
}

func TestValuesOfTheQuickStart(t *testing.T) {
	helmProgram(t)
	list := release{values: block(t, "# dgx.yaml\n")}.objects(t)
	config, err := v1alpha1.DecodeNodeConfig([]byte(into[corev1.ConfigMap](t, list, "ConfigMap", "eks-hybrid-dra").Data["config.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	if len(config.SRIOV.Selectors) != 1 || len(config.SRIOV.Selectors[0].PFNames) != 8 {
		t.Errorf("the plugin is told %+v", config.SRIOV)
	}
	spec := podSpec(t, list, list.get(t, "DaemonSet", "eks-hybrid-dra-kubelet-plugin"))
	if image := spec.Containers[0].Image; image != "registry.example.com/eks-hybrid-dra:v0.1" {
		t.Errorf("the image is %s", image)
	}
	if !slices.Contains(spec.Containers[0].Args, "--enable-sriov=true") {
		t.Errorf("arguments %q", spec.Containers[0].Args)
	}
}

// The commands of helm in the documents have values that there are.
func TestCommandsOfTheDocuments(t *testing.T) {
	program := helmProgram(t)
	var files []string
	for _, pattern := range []string{"README.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	commands := regexp.MustCompile(`(?m)^ *\$ helm (?:install|upgrade)((?: .*\\\n)*.*)$`)
	folder := t.TempDir()
	for name, content := range map[string]string{"dgx.yaml": block(t, "# dgx.yaml\n"), "ca.crt": pem} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(absolute, "deployments"), filepath.Join(folder, "deployments")); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		for _, match := range commands.FindAllStringSubmatch(document(t, strings.TrimPrefix(file, root)), -1) {
			count++
			// These are for releases that are there.
			line := regexp.MustCompile(` --(reset-then-reuse-values|create-namespace)`).ReplaceAllString(match[1], "")
			line = strings.NewReplacer("\\\n", " ", "'", "").Replace(line)
			if _, err := run(t, folder, program, append([]string{"template"}, strings.Fields(line)...)...); err != nil {
				t.Errorf("%s: helm%s: %v", file, match[1], err)
			}
		}
	}
	if count < 4 {
		t.Errorf("only %d commands were found", count)
	}
}

// What helm prints after an install is about this release.
func TestNotesAreAboutTheRelease(t *testing.T) {
	helmProgram(t)
	for set, want := range map[string][]string{
		"everything": {
			"Should the namespace gpus", " gpu=h200 ", "kubectl rollout status -n gpus daemonset/dgx-kubelet-plugin", "spec.driver=dgx.example.com",
			"gpu.dgx.example.com vf.dgx.example.com gpu-vf.dgx.example.com", "a limit for nvidia.com/gpu gets a device of gpu.dgx.example.com",
			"deployment/dgx-controller", "reason=RegistryTrusted", "simulate is dgx-h200",
		},
		"defaults":              {"eks.amazonaws.com/compute-type=hybrid", "localhost/eks-hybrid-dra:dev, which no registry has"},
		"as little as possible": {"(all nodes", "a stolen token of one node may write about all nodes"},
	} {
		out, err := helm(t, append([]string{"install", "try", chart, "--namespace", "gpus", "--dry-run=client"}, sets()[set].args(t)...)...)
		if err != nil {
			t.Fatal(err)
		}
		_, notes, _ := strings.Cut(out, "NOTES:\n")
		for _, part := range want {
			if !strings.Contains(notes, part) {
				t.Errorf("%s: %q is not in\n%s", set, part, notes)
			}
		}
	}
}
