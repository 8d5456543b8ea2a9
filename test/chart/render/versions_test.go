package render

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

const (
	// oldest is the oldest Kubernetes that the chart takes.
	oldest = "v1.30.14"
	// servesGPUs is what takes a cluster without claims.
	servesGPUs = "--set-json=nodeConfig.devicePlugin.kinds=[\"gpu\"]"
)

// setsFor are the sets that suit a version of Kubernetes, told to Helm as a cluster
// of this version does.
func setsFor(t *testing.T, kubernetes string) map[string]release {
	t.Helper()
	suitable := sets()
	if version.MustParseGeneric(kubernetes).LessThan(version.MustParseGeneric("1.34")) {
		suitable = setsWithoutClaims()
	}
	for name, set := range suitable {
		set.set = append(slices.Clone(set.set), "--kube-version="+kubernetes)
		suitable[name] = set
	}
	return suitable
}

// setsWithoutClaims are ways to install the chart where there are no claims.
func setsWithoutClaims() map[string]release {
	return map[string]release{
		"GPUs":         {set: []string{servesGPUs}},
		"GPUs and VFs": sets()["by the device plugin API"],
		"with hybrid nodes": {values: `
nodeConfig: {devicePlugin: {kinds: [gpu]}, nodeLabels: {enabled: true}}
hybrid:
  cniAffinity: {daemonSets: [{preset: cilium}]}
  registry: {enabled: true, existingSecret: registries, pullSecret: {name: harbor, namespaces: [a]}}
monitoring: {scrape: {enabled: true}, rules: {enabled: true}, dashboard: {enabled: true}}
`},
	}
}

// What a cluster without claims cannot have is left out, and the controller does what
// hybrid nodes need or is left out, too.
func TestClustersWithoutClaimsGetWhatTheyCanUse(t *testing.T) {
	helmProgram(t)
	for name, set := range setsFor(t, oldest) {
		t.Run(name, func(t *testing.T) {
			list := set.objects(t)
			for _, object := range list {
				if group := object.GroupVersionKind().Group; group == "resource.k8s.io" || object.GetKind() == "ValidatingWebhookConfiguration" {
					t.Errorf("there is %s %s", object.GetKind(), object.GetName())
				}
			}
			if object := list.get(t, "DaemonSet", "eks-hybrid-dra-kubelet-plugin"); len(podSpec(t, list, object).Containers) != 1 {
				t.Error("there is no plugin")
			}
			uninstall := podSpec(t, list, list.get(t, "Job", "eks-hybrid-dra-uninstall")).Containers[0].Args
			hybrid := name == "with hybrid nodes"
			if got := list.has("Deployment", "eks-hybrid-dra-controller"); got != hybrid || slices.Contains(uninstall, "--controller=") == hybrid {
				t.Errorf("there is a controller: %t; the uninstall is told %q", got, uninstall)
			}
			if !hybrid {
				return
			}
			args := into[appsv1.Deployment](t, list, "Deployment", "eks-hybrid-dra-controller").Spec.Template.Spec.Containers[0].Args
			if !slices.Contains(args, "--enable-claims=false") || !slices.Contains(args, "--enable-webhook=false") || !slices.Contains(args, "--hybrid-config=/etc/eks-hybrid-dra/hybrid/hybrid.yaml") {
				t.Errorf("the controller is told %q", args)
			}
			for _, rule := range into[rbacv1.ClusterRole](t, list, "ClusterRole", "eks-hybrid-dra-controller").Rules {
				if slices.Contains(rule.APIGroups, "resource.k8s.io") || slices.Contains(rule.Resources, "pods") {
					t.Errorf("the controller has rights for claims: %v", rule)
				}
			}
		})
	}
}

// What would be of no use on a cluster without claims is refused with what to do.
func TestClustersWithoutClaimsAreNotPromisedAny(t *testing.T) {
	helmProgram(t)
	const has = "the cluster, Kubernetes v1.33.9, "
	for name, test := range map[string]struct {
		set  []string
		want string
	}{
		"the defaults":       {nil, has + `does not serve resource.k8s.io/v1, as Kubernetes does since 1.34, so that it has no claims: add "gpu" to nodeConfig.devicePlugin.kinds`},
		"VFs by claims":      {[]string{servesGPUs, "--set=driver.enableSRIOV=true"}, `add "vf" to nodeConfig.devicePlugin.kinds, for pods that ask for an extended resource such as nvidia.com/gpu, or switch driver.enableSRIOV off`},
		"resource of claims": {[]string{servesGPUs, "--set=deviceClasses.extendedResourceNames.gpu=nvidia.com/gpu"}, `deviceClasses.extendedResourceNames.gpu is "nvidia.com/gpu", but ` + has + "has no DeviceClasses"},
	} {
		_, err := release{set: append(test.set, "--kube-version=1.33.9")}.text(t)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
	// As EKS calls its versions.
	if _, err := (release{set: []string{"--kube-version=v1.34.1-eks-3025e55"}}).text(t); err != nil {
		t.Error(err)
	}
	_, err := release{set: []string{servesGPUs, "--kube-version=1.29.9"}}.text(t)
	if want := "chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

// Helm prints notes after an install only, which takes a cluster: here a copy of the
// chart has them as an object.
func TestNotesSayThatThereAreNoClaims(t *testing.T) {
	helmProgram(t)
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "templates", "NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"notes": string(text), "templates/copy.yaml": `notes: {{ tpl (.Files.Get "notes") . | toYaml | nindent 2 }}`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notes, err := helm(t, "template", "try", folder, servesGPUs, "--kube-version=1.33.9", "--show-only=templates/copy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(notes, "pods that ask for nvidia.com/gpu:") || !strings.Contains(notes, "Kubernetes v1.33.9, has no claims") || strings.Contains(notes, "resourceslices") {
		t.Errorf("the notes are\n%s", notes)
	}
}

// A Job that waits for a node which there is not would never uninstall anything.
func TestUninstallDoesNotWaitForCloudNodes(t *testing.T) {
	helmProgram(t)
	for cloudNodes, wants := range map[string]string{"required": "preferred", "preferred": "preferred", "ignored": "ignored"} {
		list := release{set: []string{"--set=controller.cloudNodes=" + cloudNodes}}.objects(t)
		affinity := into[batchv1.Job](t, list, "Job", "eks-hybrid-dra-uninstall").Spec.Template.Spec.Affinity
		got := "ignored"
		if affinity != nil && affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			got = "required"
		} else if affinity != nil && len(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 1 {
			got = "preferred"
		}
		if got != wants {
			t.Errorf("with controller.cloudNodes=%s, cloud nodes are %s, want %s", cloudNodes, got, wants)
		}
	}
}
