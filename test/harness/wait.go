package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// PodCondition is something that a pod may become. Met returns an error when
// the pod can no longer become it.
type PodCondition struct {
	Name string
	Met  func(pod *corev1.Pod) (bool, error)
}

// Succeeded is met when all containers ended well.
func Succeeded() PodCondition {
	return PodCondition{"succeed", func(pod *corev1.Pod) (bool, error) {
		if pod.Status.Phase == corev1.PodFailed {
			return false, errors.New("it failed")
		}
		return pod.Status.Phase == corev1.PodSucceeded, nil
	}}
}

// Running is met when all containers run.
func Running() PodCondition {
	return PodCondition{"run", func(pod *corev1.Pod) (bool, error) {
		if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
			return false, fmt.Errorf("it is %s already", pod.Status.Phase)
		}
		return podCondition(pod, corev1.PodReady) == corev1.ConditionTrue, nil
	}}
}

// Unschedulable is met when the scheduler looked at the pod and found no place.
func Unschedulable() PodCondition {
	return PodCondition{"be found unschedulable", func(pod *corev1.Pod) (bool, error) {
		if pod.Spec.NodeName != "" {
			return false, fmt.Errorf("it is on node %s", pod.Spec.NodeName)
		}
		return podCondition(pod, corev1.PodScheduled) == corev1.ConditionFalse, nil
	}}
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == kind {
			return condition.Status
		}
	}
	return corev1.ConditionUnknown
}

// WaitPod returns the pod as soon as the condition is met. The pod need not
// exist yet. An error tells how far the pod came and what events say of it.
func (c *Cluster) WaitPod(ctx context.Context, namespace, name string, want PodCondition) (*corev1.Pod, error) {
	var last *corev1.Pod
	err := until(ctx, c.named("pods", namespace, name), &corev1.Pod{}, func(pod *corev1.Pod, gone bool) (bool, error) {
		if gone {
			return false, errors.New("it was deleted")
		}
		last = pod
		return want.Met(pod)
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for pod %s/%s to %s: %w%s", namespace, name, want.Name, err, c.story(ctx, namespace, name, last))
	}
	return last, nil
}

// WaitNamespace returns when pods can be created in a new namespace, which is
// when it has its default service account.
func (c *Cluster) WaitNamespace(ctx context.Context, namespace string) error {
	err := until(ctx, c.named("serviceaccounts", namespace, "default"), &corev1.ServiceAccount{}, func(_ *corev1.ServiceAccount, gone bool) (bool, error) {
		return !gone, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the default service account of namespace %s: %w", namespace, err)
	}
	return nil
}

// WaitPodGone returns when there is no such pod.
func (c *Cluster) WaitPodGone(ctx context.Context, namespace, name string) error {
	if err := untilGone(ctx, c.named("pods", namespace, name)); err != nil {
		return fmt.Errorf("waiting for pod %s/%s to go: %w%s", namespace, name, err, c.story(ctx, namespace, name, nil))
	}
	return nil
}

// WaitPodsGone returns when no pod is left in the namespace.
func (c *Cluster) WaitPodsGone(ctx context.Context, namespace string) error {
	pods := cache.NewFilteredListWatchFromClient(c.Client.CoreV1().RESTClient(), "pods", namespace, func(*metav1.ListOptions) {})
	if err := untilGone(ctx, pods); err != nil {
		return fmt.Errorf("waiting for the pods of namespace %s to go: %w", namespace, err)
	}
	return nil
}

// untilGone returns when none of the pods is left.
func untilGone(ctx context.Context, pods cache.ListerWatcher) error {
	left := map[string]bool{}
	none := func(store cache.Store) (bool, error) { return len(store.List()) == 0, nil }
	_, err := watchtools.UntilWithSync(ctx, pods, &corev1.Pod{}, none, condition(func(pod *corev1.Pod, gone bool) (bool, error) {
		if left[pod.Name] = true; gone {
			delete(left, pod.Name)
		}
		return len(left) == 0, nil
	}))
	return readable(ctx, err)
}

// WaitEvent returns the first event about the named object whose message
// contains the text.
func (c *Cluster) WaitEvent(ctx context.Context, namespace, object, text string) (*corev1.Event, error) {
	events := cache.NewFilteredListWatchFromClient(c.Client.CoreV1().RESTClient(), "events", namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("involvedObject.name", object).String()
	})
	var found *corev1.Event
	var seen []string
	err := until(ctx, events, &corev1.Event{}, func(event *corev1.Event, _ bool) (bool, error) {
		found = event
		seen = append(seen, event.Reason+": "+event.Message)
		return strings.Contains(event.Message, text), nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for an event about %s/%s that says %q: %w; seen were:\n%s", namespace, object, text, err, strings.Join(seen, "\n"))
	}
	return found, nil
}

// named watches one object.
func (c *Cluster) named(resource, namespace, name string) cache.ListerWatcher {
	return cache.NewFilteredListWatchFromClient(c.Client.CoreV1().RESTClient(), resource, namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
}

// until watches objects until done says so of one of them.
func until[T runtime.Object](ctx context.Context, objects cache.ListerWatcher, empty T, done func(object T, gone bool) (bool, error)) error {
	_, err := watchtools.UntilWithSync(ctx, objects, empty, nil, condition(done))
	return readable(ctx, err)
}

func condition[T runtime.Object](done func(object T, gone bool) (bool, error)) watchtools.ConditionFunc {
	return func(event watch.Event) (bool, error) {
		if event.Type == watch.Error {
			return false, apierrors.FromObject(event.Object)
		}
		object, ok := event.Object.(T)
		if !ok {
			return false, fmt.Errorf("watch brought %T, which was not asked for", event.Object)
		}
		return done(object, event.Type == watch.Deleted)
	}
}

// readable replaces the watch library's only word for running out of time.
func readable(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// story tells how far a pod came. It is part of an error message, so that
// whatever fails here is told in its place.
func (c *Cluster) story(ctx context.Context, namespace, name string, pod *corev1.Pod) string {
	var out strings.Builder
	if pod != nil {
		fmt.Fprintf(&out, "\nphase %s", pod.Status.Phase)
		for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil {
				fmt.Fprintf(&out, "\ncontainer %s waits: %s %s", s.Name, w.Reason, w.Message)
			}
			if e := s.State.Terminated; e != nil {
				fmt.Fprintf(&out, "\ncontainer %s ended with %d: %s %s", s.Name, e.ExitCode, e.Reason, e.Message)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	events, err := c.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.name", name).String(),
	})
	if err != nil {
		fmt.Fprintf(&out, "\nevents could not be read: %v", err)
		return out.String()
	}
	for _, event := range events.Items {
		fmt.Fprintf(&out, "\nevent %s: %s", event.Reason, event.Message)
	}
	return out.String()
}
