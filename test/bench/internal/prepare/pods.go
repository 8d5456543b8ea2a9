package prepare

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	podStartPlain = "pod_start_plain"
	podStartClaim = "pod_start_claim"
	nodePartPlain = "pod_scheduled_to_running_plain"
	nodePartClaim = "pod_scheduled_to_running_claim"
	forceDelete   = "force_delete_next_pod"

	podNamespace = "bench-pods"
	image        = "nvidia/cuda:12.3.0-base-ubuntu22.04"
	template     = "one-gpu"
	firstGPU     = "gpu-0"
)

// pods measures what a user sees: pods on a node that a real kubelet runs, with
// the driver installed as users install it.
func (s *Suite) pods(ctx context.Context) (err error) {
	install, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Cluster.InstallDriver(install, "deployments/manifests/simulated-dgx-h200"); err != nil {
		return err
	}
	if _, err := s.Cluster.WaitDevices(install, gpus); err != nil {
		return err
	}
	client := s.Cluster.Client
	if err := deleteNamespace(ctx, client, podNamespace); err != nil {
		return err
	}
	if err := newNamespace(ctx, client, podNamespace); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err = errors.Join(err, deleteNamespace(ctx, client, podNamespace))
	}()
	selectors := map[string][]resourceapi.DeviceSelector{template: nil, firstGPU: {{CEL: &resourceapi.CELDeviceSelector{
		Expression: fmt.Sprintf("device.attributes[%q].index == 0", harness.DriverName),
	}}}}
	for name, selector := range selectors {
		if err := s.newTemplate(ctx, name, selector); err != nil {
			return err
		}
	}
	if err := s.Steps.Do("Pods with and without a claim", func() error { return s.podStarts(ctx) }); err != nil {
		return err
	}
	return s.Steps.Do("A pod after a force-deleted one", func() error { return s.forceDeletes(ctx) })
}

func (s *Suite) newTemplate(ctx context.Context, name string, selectors []resourceapi.DeviceSelector) error {
	t := &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: name}}
	t.Spec.Spec.Devices.Requests = []resourceapi.DeviceRequest{{
		Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: harness.DeviceClass, Selectors: selectors},
	}}
	if _, err := s.Cluster.Client.ResourceV1().ResourceClaimTemplates(podNamespace).Create(ctx, t, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create claim template %s: %w", name, err)
	}
	return nil
}

// newPod returns a pod that runs a command, with a claim made from a template
// unless that is empty.
func newPod(name, claimTemplate string, command ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: podNamespace, Name: name}, Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Tolerations:   []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		Containers:    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Command: command}},
	}}
	if claimTemplate != "" {
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: &claimTemplate}}
		pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	}
	return pod
}

// podStarts starts pods with and without a claim in turn.
func (s *Suite) podStarts(ctx context.Context) error {
	kinds := []struct{ template, total, nodePart string }{
		{"", podStartPlain, nodePartPlain},
		{template, podStartClaim, nodePartClaim},
	}
	for round := range s.Size.Pods + 1 {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)]
			pod := newPod(fmt.Sprintf("start-%d-%d", round, i), kind.template, "sleep", "infinity")
			times, err := s.startPod(ctx, pod)
			if err != nil {
				return err
			}
			if round > 0 { // the first of each kind fills caches
				s.report.Keep(kind.total, figures.Ours, figures.Samples{figures.Milliseconds(times.running.Sub(times.created))})
				s.report.Keep(kind.nodePart, figures.Ours, figures.Samples{figures.Milliseconds(times.running.Sub(times.scheduled))})
			}
			if err := s.deletePod(ctx, pod.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// podTimes are moments in a pod's life by this program's clock: the API's own
// times are whole seconds.
type podTimes struct {
	created, scheduled, running time.Time
}

// startPod creates a pod and returns when its container was seen to run.
func (s *Suite) startPod(ctx context.Context, pod *corev1.Pod) (times podTimes, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pods := s.Cluster.Client.CoreV1().Pods(pod.Namespace)
	watch, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()})
	if err != nil {
		return times, fmt.Errorf("watch pod %s: %w", pod.Name, err)
	}
	defer watch.Stop()
	times.created = time.Now()
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return times, fmt.Errorf("create pod %s: %w", pod.Name, err)
	}
	for event := range watch.ResultChan() {
		now := time.Now()
		seen, ok := event.Object.(*corev1.Pod)
		if !ok {
			return times, fmt.Errorf("watch pod %s: it ended with %T", pod.Name, event.Object)
		}
		if seen.Spec.NodeName != "" && times.scheduled.IsZero() {
			times.scheduled = now
		}
		if seen.Status.Phase == corev1.PodFailed || seen.Status.Phase == corev1.PodSucceeded {
			return times, fmt.Errorf("pod %s is %s: %s", pod.Name, seen.Status.Phase, seen.Status.Message)
		}
		for _, container := range seen.Status.ContainerStatuses {
			if container.State.Running != nil {
				times.running = now
				return times, nil
			}
		}
	}
	// It says what became of the pod.
	_, err = s.Cluster.WaitPod(ctx, pod.Namespace, pod.Name, harness.Running())
	return times, errors.Join(fmt.Errorf("pod %s was not seen running: %w", pod.Name, context.Cause(ctx)), err)
}

// deletePod deletes a pod and waits until it is gone, with its claim.
func (s *Suite) deletePod(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Cluster.Client.CoreV1().Pods(podNamespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	if err := s.Cluster.WaitPodGone(ctx, podNamespace, name); err != nil {
		return err
	}
	return waitNoClaims(ctx, s.Cluster.Client, podNamespace)
}
