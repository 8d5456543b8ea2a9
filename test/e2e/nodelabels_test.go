package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestTheNodeIsLabelledWithItsGPUsAndThePluginMayDoNothingElseToIt(t *testing.T) {
	s := newSpace(t, nil)
	node := s.nodeOfSlices()
	s.applyFromChart("templates/kubelet-plugin/nodelabels.yaml", "nodeConfig.nodeLabels.enabled=true")
	label := func(words ...string) {
		t.Helper()
		if _, err := cluster.Kubectl(context.WithoutCancel(s.ctx), append([]string{"label", "--overwrite", "node", node}, words...)...); err != nil {
			t.Error(err)
		}
	}
	labelled := func(what, model, count string) {
		t.Helper()
		s.until(what, func() error {
			n, err := cluster.Client.CoreV1().Nodes().Get(s.ctx, node, metav1.GetOptions{})
			if err == nil && (n.Labels["gpu"] != model || n.Labels["gpu-count"] != count) {
				err = fmt.Errorf("the node has gpu=%q, gpu-count=%q", n.Labels["gpu"], n.Labels["gpu-count"])
			}
			return err
		})
	}

	// What somebody else has set stays.
	label("gpu-count=3")
	t.Cleanup(func() { label("gpu-count-", "gpu-") })
	configure := s.configurable()
	configure("nodeLabels: {enabled: true}")
	labelled("labelled beside what somebody else has set", "h200", "3")
	s.wantMetric(`eks_hybrid_dra_node_label_conflict{label="gpu-count"} 1`)
	label("gpu-count-")
	s.rollPlugin()
	labelled("labelled", "h200", "8")

	pod, err := cluster.PluginPod(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	own := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	for name, test := range map[string]struct {
		bound   *authenticationv1.BoundObjectReference
		patch   string
		refused []string
	}{
		"its labels":             {own, `{"metadata":{"labels":{"gpu":"h100","gpu-count":null}}}`, nil},
		"another label":          {own, `{"metadata":{"labels":{"gpu":"h100","zone":"a"}}}`, []string{"gpu and gpu-count", "not zone"}},
		"a label taken away":     {own, `{"metadata":{"labels":{"kubernetes.io/hostname":null}}}`, []string{"not kubernetes.io/hostname"}},
		"a label changed":        {own, `{"metadata":{"labels":{"kubernetes.io/hostname":"x"}}}`, []string{"not kubernetes.io/hostname"}},
		"no taint, as before":    {own, `{"spec":{"taints":[]},"metadata":{"labels":{"gpu":"h100"}}}`, nil},
		"a taint":                {own, `{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`, []string{"nothing else"}},
		"unschedulable":          {own, `{"spec":{"unschedulable":true}}`, []string{"nothing else"}},
		"an annotation":          {own, `{"metadata":{"annotations":{"a":"b"}}}`, []string{"nothing else"}},
		"a finalizer":            {own, `{"metadata":{"finalizers":["example.com/a"]}}`, []string{"nothing else"}},
		"another node":           {podOn(t, "dgx-1"), `{"metadata":{"labels":{"gpu":"h100"}}}`, []string{`node "dgx-1"`, node}},
		"a token without a node": {nil, `{"metadata":{"labels":{"gpu":"h100"}}}`, []string{"not bound to a pod"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := asPlugin(t, test.bound).CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(test.patch),
				metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			wantRefused(t, err, test.refused)
		})
	}

	configure("nodeLabels: {enabled: false}")
	labelled("without the labels", "", "")
}

// applyFromChart applies what one template of the chart makes of values, until
// the test ends.
func (s *space) applyFromChart(template string, set ...string) {
	s.t.Helper()
	root, err := harness.Repository()
	if err != nil {
		s.t.Fatal(err)
	}
	helm := os.Getenv("HELM_BIN")
	if helm == "" {
		s.t.Fatal("HELM_BIN is not set: run make e2e, or build helm by make helm and set it to bin/helm")
	}
	args := []string{"template", harness.DriverName, filepath.Join(root, "deployments/helm/eks-hybrid-dra"), "--namespace", harness.Namespace, "--show-only", template}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	rendered, err := exec.CommandContext(s.ctx, helm, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			s.t.Fatalf("helm template: %v\n%s", err, exit.Stderr)
		}
		s.t.Fatal(err)
	}
	file := filepath.Join(s.t.TempDir(), "rendered.yaml")
	if err := os.WriteFile(file, rendered, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if _, err := cluster.Kubectl(context.WithoutCancel(s.ctx), "delete", "-f", file); err != nil {
			s.t.Error(err)
		}
	})
	if _, err := cluster.Kubectl(s.ctx, "apply", "-f", file); err != nil {
		s.t.Fatal(err)
	}
}
