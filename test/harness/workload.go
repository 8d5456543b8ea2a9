package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// WaitJob returns the job's pod when the job is complete, and an error as soon
// as the job failed.
func (c *Cluster) WaitJob(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	jobs := cache.NewFilteredListWatchFromClient(c.Client.BatchV1().RESTClient(), "jobs", namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	err := until(ctx, jobs, &batchv1.Job{}, func(job *batchv1.Job, gone bool) (bool, error) {
		if gone {
			return false, errors.New("it was deleted")
		}
		for _, condition := range job.Status.Conditions {
			if condition.Status != corev1.ConditionTrue {
				continue
			}
			switch condition.Type {
			case batchv1.JobComplete:
				return true, nil
			case batchv1.JobFailed:
				return false, fmt.Errorf("it failed: %s: %s", condition.Reason, condition.Message)
			}
		}
		return false, nil
	})
	pods, listErr := c.Client.CoreV1().Pods(namespace).List(context.WithoutCancel(ctx), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
	if listErr != nil {
		return nil, errors.Join(err, fmt.Errorf("listing the pods of job %s/%s: %w", namespace, name, listErr))
	}
	if err == nil && len(pods.Items) != 1 {
		return nil, fmt.Errorf("job %s/%s is complete with %d pods, not 1", namespace, name, len(pods.Items))
	}
	if err != nil {
		err = fmt.Errorf("waiting for job %s/%s to complete: %w", namespace, name, err)
		for _, pod := range pods.Items {
			err = fmt.Errorf("%w\npod %s:%s", err, pod.Name, c.story(ctx, namespace, pod.Name, &pod))
		}
		return nil, err
	}
	return &pods.Items[0], nil
}

// WaitAllocated returns the first claim of the namespace that has an allocation.
// Started before the claim is made, it also sees one that lives very shortly.
func (c *Cluster) WaitAllocated(ctx context.Context, namespace string) (*resourceapi.ResourceClaim, error) {
	claims := cache.NewFilteredListWatchFromClient(c.Client.ResourceV1().RESTClient(), "resourceclaims", namespace, func(*metav1.ListOptions) {})
	var found *resourceapi.ResourceClaim
	err := until(ctx, claims, &resourceapi.ResourceClaim{}, func(claim *resourceapi.ResourceClaim, _ bool) (bool, error) {
		found = claim
		return claim.Status.Allocation != nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for a claim of namespace %s to be allocated: %w", namespace, err)
	}
	return found, nil
}

// Logs returns what a container printed so far.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	stream, err := c.Client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the log of container %s of pod %s/%s: %w", container, namespace, pod, err)
	}
	text, err := io.ReadAll(stream)
	if err = errors.Join(err, stream.Close()); err != nil {
		return "", fmt.Errorf("reading the log of container %s of pod %s/%s: %w", container, namespace, pod, err)
	}
	return string(text), nil
}

// GPUs returns the UUIDs of the GPUs in a text that nvidia-smi -L printed, in
// its order.
func GPUs(text string) []string {
	line := regexp.MustCompile(`(?m)^GPU \d+: .*\(UUID: (GPU-[^)]+)\)`)
	var uuids []string
	for _, match := range line.FindAllStringSubmatch(text, -1) {
		uuids = append(uuids, match[1])
	}
	return uuids
}
