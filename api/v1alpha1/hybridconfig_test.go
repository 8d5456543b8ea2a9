package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const hybridHead = "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: HybridConfig\n"

func TestDecodeHybridConfig(t *testing.T) {
	head := metav1.TypeMeta{APIVersion: "resource.eks-hybrid-dra/v1alpha1", Kind: "HybridConfig"}
	for name, test := range map[string]struct {
		raw  string
		want *HybridConfig
	}{
		"nothing":            {hybridHead, &HybridConfig{TypeMeta: head}},
		"switched on, empty": {hybridHead + "cniAffinity: {}\npullSecret: {}", &HybridConfig{TypeMeta: head, CNIAffinity: &CNIAffinityConfig{}, PullSecret: &PullSecretConfig{}}},
		"defaults of presets": {
			hybridHead + "cniAffinity: {daemonSets: [{preset: cilium}, {preset: aws-node}, {preset: calico, nodes: any}, {namespace: cni, name: mine, nodes: cloud}]}",
			&HybridConfig{TypeMeta: head, CNIAffinity: &CNIAffinityConfig{DaemonSets: []CNIDaemonSets{
				{Preset: "cilium", Nodes: HybridNodes}, {Preset: "aws-node", Nodes: CloudNodes}, {Preset: "calico", Nodes: AnyNodes}, {Namespace: "cni", Name: "mine", Nodes: CloudNodes},
			}}},
		},
		"pull secret": {
			hybridHead + "pullSecret: {name: harbor, namespaces: [a], namespaceSelector: {matchLabels: {team: ml}}, formerNames: [old]}",
			&HybridConfig{TypeMeta: head, PullSecret: &PullSecretConfig{
				Name: "harbor", Namespaces: []string{"a"}, FormerNames: []string{"old"},
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "ml"}},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeHybridConfig([]byte(test.raw))
			if err != nil {
				t.Fatalf("unexpected error: %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("unexpected configuration (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got, got.DeepCopyObject()); diff != "" {
				t.Errorf("a copy differs (-original +copy):\n%s", diff)
			}
		})
	}
}

func TestRefuseHybridConfig(t *testing.T) {
	sets := func(entries string) string { return hybridHead + "cniAffinity: {daemonSets: [" + entries + "]}" }
	for name, test := range map[string]struct {
		raw string
		err []string
	}{
		"another kind":        {"apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig", []string{`"NodeConfig"`, "no configuration of the controller", "HybridConfig"}},
		"empty":               {"# nothing", []string{"no configuration given", "HybridConfig"}},
		"unknown field":       {sets("{preset: cilium, node: hybrid}"), []string{`unknown field "cniAffinity.daemonSets[0].node"`}},
		"unknown preset":      {sets("{preset: flannel}"), []string{`cniAffinity.daemonSets[0].preset: Unsupported value: "flannel"`, `"aws-node", "calico", "cilium"`}},
		"preset and name":     {sets("{preset: cilium, name: cilium}"), []string{"cniAffinity.daemonSets[0].preset", "names of its own"}},
		"nothing named":       {sets("{nodes: hybrid}"), []string{"cniAffinity.daemonSets[0]: Required", "a preset, or the namespace and name"}},
		"no namespace":        {sets("{name: cni, nodes: hybrid}"), []string{"cniAffinity.daemonSets[0].namespace: Required"}},
		"wrong name":          {sets("{namespace: a, name: A_b, nodes: hybrid}"), []string{`cniAffinity.daemonSets[0].name: Invalid value: "A_b"`}},
		"no nodes":            {sets("{namespace: a, name: b}"), []string{"cniAffinity.daemonSets[0].nodes: Required", "hybrid, cloud or any"}},
		"wrong nodes":         {sets("{preset: cilium, nodes: on-premises}"), []string{`cniAffinity.daemonSets[0].nodes: Unsupported value: "on-premises"`}},
		"twice":               {sets("{preset: cilium}, {namespace: kube-system, name: cilium-envoy, nodes: any}"), []string{`cniAffinity.daemonSets[1]: Invalid value: "kube-system/cilium-envoy"`, "cniAffinity.daemonSets[0] names this DaemonSet, too"}},
		"namespaces, no name": {hybridHead + "pullSecret: {namespaces: [a]}", []string{"pullSecret.name: Required"}},
		"secret's name":       {hybridHead + "pullSecret: {name: A}", []string{`pullSecret.name: Invalid value: "A"`}},
		"namespace":           {hybridHead + "pullSecret: {name: a, namespaces: [a.b]}", []string{`pullSecret.namespaces[0]: Invalid value: "a.b"`}},
		"selector":            {hybridHead + "pullSecret: {name: a, namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}", []string{"pullSecret.namespaceSelector.matchExpressions[0].operator"}},
		"name kept and gone":  {hybridHead + "pullSecret: {name: a, formerNames: [a]}", []string{`pullSecret.formerNames[0]: Invalid value: "a"`}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeHybridConfig([]byte(test.raw))
			if err == nil {
				t.Fatalf("want an error with %q, got %+v", test.err, got)
			}
			for _, want := range test.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestHybridConfigCopySharesNothing(t *testing.T) {
	full := func() *HybridConfig {
		return &HybridConfig{
			CNIAffinity: &CNIAffinityConfig{DaemonSets: []CNIDaemonSets{{Preset: "a"}}},
			PullSecret: &PullSecretConfig{
				Namespaces: []string{"a"}, FormerNames: []string{"a"},
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "a"}},
			},
		}
	}
	original := full()
	copied, ok := original.DeepCopyObject().(*HybridConfig)
	if !ok {
		t.Fatalf("the copy is a %T", original.DeepCopyObject())
	}
	copied.CNIAffinity.DaemonSets[0].Preset = "b"
	copied.PullSecret.Namespaces[0], copied.PullSecret.FormerNames[0] = "b", "b"
	copied.PullSecret.NamespaceSelector.MatchLabels["a"] = "b"
	if diff := cmp.Diff(full(), original); diff != "" {
		t.Errorf("changing the copy changed the original (-before +after):\n%s", diff)
	}
}
