package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const runtimeClass = `{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}`

// What would end in a DaemonSet without pods is refused with what to do.
func TestClustersThatLackSomethingAreRefused(t *testing.T) {
	s := newSite(t)
	const strict = "strict"
	s.kubectl("create", "namespace", strict)
	t.Cleanup(func() { s.kubectl("delete", "namespace", strict, "--ignore-not-found", "--wait") })
	s.kubectl("label", "namespace", strict, "pod-security.kubernetes.io/enforce=baseline")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a strict namespace": {[]string{"--namespace", strict}, `"kubectl label --overwrite namespace strict pod-security.kubernetes.io/enforce=privileged"`},
		"no RuntimeClass":    {[]string{"--namespace", "default", "--set", "kubeletPlugin.runtimeClassName=nvidia"}, `kubeletPlugin.runtimeClassName is "nvidia", but the cluster has no such RuntimeClass`},
	} {
		out, err := s.helm(append([]string{"install", release, source}, test.args...)...)
		if err == nil || !strings.Contains(out, test.want) {
			t.Errorf("%s: got %v, want %q in\n%s", name, err, test.want, out)
		}
	}
}

// A pod that asks for nvidia.com/gpu by a limit, as with a device plugin, gets a
// GPU by DRA, from a plugin without privileges.
func TestLimitsAreServedByDRA(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "runtimeclass.json")
	s.must(os.WriteFile(file, []byte(runtimeClass), 0o600))
	s.kubectl("apply", "-f", file)
	t.Cleanup(func() { s.kubectl("delete", "-f", file, "--ignore-not-found") })
	before := s.before(harness.Namespace)
	s.mustHelm("install", release, source, "--namespace", harness.Namespace, "--create-namespace",
		"--set", "simulate=dgx-h200,kubeletPlugin.runtimeClassName=nvidia,deviceClasses.extendedResourceNames.gpu=nvidia.com/gpu",
		"--wait", "--timeout", patience.String())
	_, err := cluster.WaitDevices(s.patient(), gpusPerNode)
	s.must(err)
	s.must(cluster.WaitNamespace(s.patient(), "default"))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "limit", Namespace: "default"},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: "cuda", Image: "nvidia/cuda:12.3.0-base-ubuntu22.04", ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"nvidia-smi", "-L"},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("2")}},
			}},
		},
	}
	pod, err = cluster.Client.CoreV1().Pods(pod.Namespace).Create(s.ctx, pod, metav1.CreateOptions{})
	s.must(err)
	_, err = cluster.WaitPod(s.patient(), pod.Namespace, pod.Name, harness.Succeeded())
	s.must(err)
	if gpus := harness.GPUs(s.kubectl("logs", pod.Name)); len(gpus) != 2 {
		t.Errorf("the pod saw GPUs %v, want 2", gpus)
	}
	s.kubectl("delete", "pod", pod.Name)
	s.mustHelm("uninstall", release, "--namespace", harness.Namespace)
	s.wantNothingLeft(before)
}
