package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// claimName is what a pod calls its claim.
const claimName = "device"

// Runner runs pods in a namespace of its own.
type Runner struct {
	Cluster   *harness.Cluster
	Namespace string
	// Image is that of the pods, which the node has already.
	Image string
}

// SetUp makes the namespace, anew if an earlier run has left one.
func (r Runner) SetUp(ctx context.Context) error {
	if err := DeleteNamespace(ctx, r.Cluster.Client, r.Namespace); err != nil {
		return err
	}
	return NewNamespace(ctx, r.Cluster.Client, r.Namespace)
}

// TearDown removes the namespace, also after ctx is done.
func (r Runner) TearDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return DeleteNamespace(ctx, r.Cluster.Client, r.Namespace)
}

// NewTemplate makes a template of claims.
func (r Runner) NewTemplate(ctx context.Context, name string, devices resourceapi.DeviceClaim) error {
	t := &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: name}}
	t.Spec.Spec.Devices = devices
	if _, err := r.Cluster.Client.ResourceV1().ResourceClaimTemplates(r.Namespace).Create(ctx, t, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create claim template %s: %w", name, err)
	}
	return nil
}

// New returns a pod that runs a command, with a claim made from a template
// unless that is empty.
func (r Runner) New(name, template string, command ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name}, Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Tolerations:   []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		Containers:    []corev1.Container{{Name: "main", Image: r.Image, ImagePullPolicy: corev1.PullIfNotPresent, Command: command}},
	}}
	if template != "" {
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: claimName, ResourceClaimTemplateName: &template}}
		pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: claimName}}
	}
	return pod
}

// Kind is a sort of pods whose start is measured.
type Kind struct {
	Name string
	// Template is that of the pods' claims, empty for pods without.
	Template string
}

// Compare starts pods of each kind in turn, one at a time, and tells their
// times. The first of each kind fills caches and does not count.
func (r Runner) Compare(ctx context.Context, rounds int, kinds []Kind, keep func(Kind, Times)) error {
	for round := range rounds + 1 {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)]
			pod := r.New(fmt.Sprintf("start-%d-%d", round, i), kind.Template, "sleep", "infinity")
			times, err := r.Start(ctx, pod)
			if err != nil {
				return err
			}
			if round > 0 {
				keep(kind, times)
			}
			if err := r.Delete(ctx, pod.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Times are moments in a pod's life by this program's clock: the API's own
// times are whole seconds.
type Times struct {
	Created, Scheduled, Running time.Time
}

// Start creates a pod and returns when its container was seen to run.
func (r Runner) Start(ctx context.Context, pod *corev1.Pod) (times Times, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pods := r.Cluster.Client.CoreV1().Pods(pod.Namespace)
	watch, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()})
	if err != nil {
		return times, fmt.Errorf("watch pod %s: %w", pod.Name, err)
	}
	defer watch.Stop()
	times.Created = time.Now()
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return times, fmt.Errorf("create pod %s: %w", pod.Name, err)
	}
	for event := range watch.ResultChan() {
		now := time.Now()
		seen, ok := event.Object.(*corev1.Pod)
		if !ok {
			return times, fmt.Errorf("watch pod %s: it ended with %T", pod.Name, event.Object)
		}
		if seen.Spec.NodeName != "" && times.Scheduled.IsZero() {
			times.Scheduled = now
		}
		if seen.Status.Phase == corev1.PodFailed || seen.Status.Phase == corev1.PodSucceeded {
			return times, fmt.Errorf("pod %s is %s: %s", pod.Name, seen.Status.Phase, seen.Status.Message)
		}
		for _, container := range seen.Status.ContainerStatuses {
			if container.State.Running != nil {
				times.Running = now
				return times, nil
			}
		}
	}
	// It says what became of the pod.
	_, err = r.Cluster.WaitPod(ctx, pod.Namespace, pod.Name, harness.Running())
	return times, errors.Join(fmt.Errorf("pod %s was not seen running: %w", pod.Name, context.Cause(ctx)), err)
}

// Delete deletes a pod and waits until it is gone, with its claim.
func (r Runner) Delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.Cluster.Client.CoreV1().Pods(r.Namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	if err := r.Cluster.WaitPodGone(ctx, r.Namespace, name); err != nil {
		return err
	}
	return waitNoClaims(ctx, r.Cluster.Client, r.Namespace)
}
