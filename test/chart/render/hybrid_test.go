package render

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Each preset gives the controller rights for the DaemonSets that it stands for, and
// the controller understands what it is told.
func TestPresetsOfCNIsHaveTheirRights(t *testing.T) {
	for _, preset := range v1alpha1.Presets() {
		t.Run(preset, func(t *testing.T) {
			list := release{values: "hybrid: {cniAffinity: {daemonSets: [{preset: " + preset + "}]}}"}.objects(t)
			config, err := v1alpha1.DecodeHybridConfig([]byte(into[corev1.ConfigMap](t, list, "ConfigMap", "eks-hybrid-dra-hybrid").Data["hybrid.yaml"]))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, set := range config.CNIAffinity.DaemonSets[0].Expand() {
				if !slices.Contains(want, set.Name) {
					want = append(want, set.Name)
				}
			}
			granted := map[string][]string{}
			for _, rule := range into[rbacv1.ClusterRole](t, list, "ClusterRole", "eks-hybrid-dra-hybrid").Rules {
				if slices.Contains(rule.Verbs, "patch") {
					granted[rule.Resources[0]] = rule.ResourceNames
				}
			}
			wanted := map[string][]string{"daemonsets": want}
			if preset == "calico" {
				wanted["installations"] = []string{"default"}
			}
			if diff := cmp.Diff(wanted, granted); diff != "" {
				t.Errorf("what may be patched (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPullSecretsAreToldAndGranted(t *testing.T) {
	list := release{values: "hybrid: {registry: {pullSecret: {name: harbor, namespaces: [a], namespaceSelector: {}, formerNames: [old, harbor]}}}"}.objects(t)
	config, err := v1alpha1.DecodeHybridConfig([]byte(into[corev1.ConfigMap](t, list, "ConfigMap", "eks-hybrid-dra-hybrid").Data["hybrid.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	if p := config.PullSecret; p.Name != "harbor" || p.NamespaceSelector == nil || !slices.Equal(p.FormerNames, []string{"old"}) || config.CNIAffinity != nil {
		t.Errorf("the controller is told %+v", config)
	}
	for _, rule := range into[rbacv1.ClusterRole](t, list, "ClusterRole", "eks-hybrid-dra-hybrid").Rules {
		switch {
		case slices.Contains(rule.Resources, "daemonsets"):
			t.Errorf("a right to DaemonSets that nobody needs: %v", rule)
		case slices.Contains(rule.Resources, "secrets") && !slices.Equal(rule.Verbs, []string{"create"}) && !slices.Equal(rule.ResourceNames, []string{"harbor", "old"}):
			t.Errorf("a right to other Secrets: %v", rule)
		}
	}
}

func TestNothingForHybridNodesUnlessAsked(t *testing.T) {
	for _, object := range (release{}).objects(t) {
		raw, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(object.GetName(), "-hybrid") || strings.Contains(string(raw), "--hybrid-config") {
			t.Errorf("the defaults have %s %s", object.GetKind(), object.GetName())
		}
	}
}

func TestWrongValuesOfHybridNodesAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"{cniAffinity: {daemonSets: [{preset: flannel}]}}":               "value must be one of 'aws-node', 'calico', 'cilium'",
		"{cniAffinity: {daemonSets: [{preset: cilium, node: hybrid}]}}":  "additional properties 'node' not allowed",
		"{cniAffinity: {daemonSets: [{preset: cilium, name: cilium}]}}":  `daemonSets[0] has preset "cilium" and also a namespace or name`,
		"{cniAffinity: {daemonSets: [{name: multus, nodes: cloud}]}}":    "want a preset, or namespace, name and nodes of a DaemonSet",
		"{cniAffinity: {daemonSets: [{preset: cilium, nodes: site}]}}":   "value must be one of 'hybrid', 'cloud', 'any'",
		"{registry: {pullSecret: {namespaces: [a]}}}":                    "name the Secret in hybrid.registry.pullSecret.name",
		"{registry: {pullSecret: {name: harbor, namespaces: team}}}":     "at '/hybrid/registry/pullSecret/namespaces': got string, want array",
		"{registry: {pullSecret: {name: H}}}":                            "at '/hybrid/registry/pullSecret/name': 'H' does not match pattern",
		"{cniAffinity: {daemonSets: [{preset: calico, namespace: ''}]}}": "at '/hybrid/cniAffinity/daemonSets/0/namespace'",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			_, err := release{values: "hybrid: " + values}.text(t)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		})
	}
	_, err := release{values: "{controller: {enabled: false}, hybrid: {cniAffinity: {daemonSets: [{preset: cilium}]}}}"}.text(t)
	if want := "controller.enabled is false: the controller keeps DaemonSets where they belong"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}
