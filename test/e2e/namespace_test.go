package e2e

import (
	"bytes"
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// patience is how long a test waits for one thing.
const patience = 2 * time.Minute

// space is a test's own namespace.
type space struct {
	t    *testing.T
	ctx  context.Context
	name string
}

// unchecked is the label of a namespace whose objects the webhook does not see,
// so that the plugin is the first to look at them.
func unchecked() map[string]string { return map[string]string{"eks-hybrid-dra/webhook": "ignore"} }

// newSpace makes a namespace. When the test ends, its pods are gone and their
// devices free before the next test starts.
func newSpace(t *testing.T, labels map[string]string) *space {
	t.Helper()
	namespace, err := cluster.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: labels},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	s := &space{t: t, name: namespace.Name}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() {
			var report bytes.Buffer
			cluster.Report(ctx, &report)
			t.Log(report.String())
		}
		s.clear()
		cancel()
	})
	ready, cancelReady := context.WithTimeout(ctx, patience)
	defer cancelReady()
	if err := cluster.WaitNamespace(ready, s.name); err != nil {
		t.Fatal(err)
	}
	return s
}

// clear deletes everything in the namespace and waits for its pods to go. What
// runs is deleted first: the namespace controller takes 5 s to begin.
func (s *space) clear() {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	background := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	if err := cluster.Client.BatchV1().Jobs(s.name).DeleteCollection(ctx, background, metav1.ListOptions{}); err != nil {
		s.t.Errorf("deleting the jobs of namespace %s: %v", s.name, err)
	}
	if err := cluster.Client.CoreV1().Pods(s.name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		s.t.Errorf("deleting the pods of namespace %s: %v", s.name, err)
	}
	if err := cluster.Client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}); err != nil {
		s.t.Errorf("deleting namespace %s: %v", s.name, err)
	}
	if err := cluster.WaitPodsGone(ctx, s.name); err != nil {
		s.t.Error(err)
	}
}

// template makes a claim template.
func (s *space) template(name string, claim resourceapi.ResourceClaimSpec) {
	s.t.Helper()
	_, err := cluster.Client.ResourceV1().ResourceClaimTemplates(s.name).Create(s.ctx, &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourceapi.ResourceClaimTemplateSpec{Spec: claim},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatalf("creating claim template %s: %v", name, err)
	}
}

// pod makes a pod with a claim from the template. It prints what it was given
// in its container "show" and then lives on.
func (s *space) pod(name, template string, show ...string) {
	s.t.Helper()
	pod := newPod(name, template)
	if len(show) > 0 {
		pod.Spec.InitContainers[0].Command = show
	}
	s.create(pod)
}

// newPod returns a pod with a claim from the template, which lists its GPUs in
// its container "show" and then lives on in its container "work".
func newPod(name, template string) *corev1.Pod {
	const image = "nvidia/cuda:12.3.0-base-ubuntu22.04"
	claims := corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpu"}}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			InitContainers:                []corev1.Container{{Name: "show", Image: image, Command: []string{"nvidia-smi", "-L"}, Resources: claims}},
			Containers:                    []corev1.Container{{Name: "work", Image: image, Command: []string{"sleep", "infinity"}, Resources: claims}},
			ResourceClaims:                []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: &template}},
			Tolerations:                   []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		},
	}
}

func (s *space) create(pod *corev1.Pod) {
	s.t.Helper()
	if _, err := cluster.Client.CoreV1().Pods(s.name).Create(s.ctx, pod, metav1.CreateOptions{}); err != nil {
		s.t.Fatalf("creating pod %s: %v", pod.Name, err)
	}
}

// wait returns the pod once the condition is met.
func (s *space) wait(pod string, want harness.PodCondition) *corev1.Pod {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	got, err := cluster.WaitPod(ctx, s.name, pod, want)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// delete starts the end of a pod.
func (s *space) delete(pod string) {
	s.t.Helper()
	if err := cluster.Client.CoreV1().Pods(s.name).Delete(s.ctx, pod, metav1.DeleteOptions{}); err != nil {
		s.t.Fatalf("deleting pod %s: %v", pod, err)
	}
}

// waitGone returns when the pod is no more.
func (s *space) waitGone(pod string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.WaitPodGone(ctx, s.name, pod); err != nil {
		s.t.Fatal(err)
	}
}

// logs returns what a container printed.
func (s *space) logs(pod, container string) string {
	s.t.Helper()
	text, err := cluster.Logs(s.ctx, s.name, pod, container)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// gpus returns the UUIDs of the GPUs that a container saw, and fails the test
// unless they are as many as wanted.
func (s *space) gpus(pod, container string, want int) []string {
	s.t.Helper()
	text := s.logs(pod, container)
	uuids := harness.GPUs(text)
	if len(uuids) != want {
		s.t.Fatalf("container %s of pod %s sees %d GPUs, want %d; it printed:\n%s", container, pod, len(uuids), want, text)
	}
	return uuids
}

// exec runs a program in the pod's running container.
func (s *space) exec(pod string, program ...string) string {
	s.t.Helper()
	out, err := cluster.Kubectl(s.ctx, append([]string{"exec", "-n", s.name, pod, "-c", "work", "--"}, program...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// claim returns the claim that the pod got from its template.
func (s *space) claim(pod string) *resourceapi.ResourceClaim {
	s.t.Helper()
	got, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, pod, metav1.GetOptions{})
	if err != nil {
		s.t.Fatalf("getting pod %s: %v", pod, err)
	}
	if len(got.Status.ResourceClaimStatuses) != 1 {
		s.t.Fatalf("pod %s has %d claims from templates, want 1", pod, len(got.Status.ResourceClaimStatuses))
	}
	claim, err := cluster.Client.ResourceV1().ResourceClaims(s.name).Get(s.ctx, *got.Status.ResourceClaimStatuses[0].ResourceClaimName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatalf("getting the claim of pod %s: %v", pod, err)
	}
	return claim
}
