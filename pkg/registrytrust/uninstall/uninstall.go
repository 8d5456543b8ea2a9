package uninstall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// reportTimeout bounds how long is spent on naming the nodes that are not done.
const reportTimeout = 10 * time.Second

// DaemonSet is the one whose pods write on the nodes.
type DaemonSet struct {
	Client          kubernetes.Interface
	Namespace, Name string
	// Container is the container of its pods that runs registry-trust.
	Container string
	// Args are what the container runs to remove what was written, and to be
	// ready from then on.
	Args []string
	// Poll is how often is looked whether all are done.
	Poll time.Duration
}

// Run returns when nothing is left on any node of the DaemonSet, or when ctx is
// done. The error names the nodes that are not done then. A DaemonSet that does
// not exist, or of which nothing was ever started, has left nothing.
func (d DaemonSet) Run(ctx context.Context) error {
	err := d.patch(ctx)
	if apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Info("There is no DaemonSet, so nothing is removed", "daemonSet", klog.KRef(d.Namespace, d.Name))
		return nil
	}
	if err != nil {
		return fmt.Errorf("have DaemonSet %s/%s remove what it wrote: %w", d.Namespace, d.Name, err)
	}
	klog.FromContext(ctx).Info("The pods remove what was written on their nodes", "daemonSet", klog.KRef(d.Namespace, d.Name))
	var last error
	err = wait.PollUntilContextCancel(ctx, d.Poll, true, func(ctx context.Context) (bool, error) {
		set, err := d.Client.AppsV1().DaemonSets(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if last = err; err != nil {
			// The API server may be away for a while; the limit is the context's.
			return false, nil //nolint:nilerr // told when time is up
		}
		return done(set), nil
	})
	if err == nil {
		return nil
	}
	return d.unfinished(ctx, last)
}

// patch changes what the pods run. They need no configuration for it, and all
// nodes may do it at once, because pulls do not depend on these pods.
func (d DaemonSet) patch(ctx context.Context) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{
		"updateStrategy": map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxUnavailable": "100%", "maxSurge": 0}},
		"template": map[string]any{"spec": map[string]any{
			"containers": []any{map[string]any{"name": d.Container, "args": d.Args}},
		}},
	}})
	if err != nil {
		return err
	}
	_, err = d.Client.AppsV1().DaemonSets(d.Namespace).Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

func done(set *appsv1.DaemonSet) bool {
	status := set.Status
	return status.ObservedGeneration >= set.Generation &&
		status.UpdatedNumberScheduled >= status.DesiredNumberScheduled &&
		status.NumberAvailable >= status.DesiredNumberScheduled
}

// unfinished says which nodes are not done.
func (d DaemonSet) unfinished(ctx context.Context, last error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	const wayOut = "see that they are up and that registry-trust runs there, and try again; what is left on a node that never comes back does no harm"
	nodes, err := d.waitingNodes(ctx)
	if err := errors.Join(last, err); err != nil {
		return fmt.Errorf("not all nodes have removed what registry-trust wrote, and which cannot be told: %w: %s", err, wayOut)
	}
	return fmt.Errorf("not all nodes have removed what registry-trust wrote in time, these have not: %s: %s", strings.Join(nodes, ", "), wayOut)
}

// waitingNodes are the nodes whose pod is not one that has removed everything.
func (d DaemonSet) waitingNodes(ctx context.Context) ([]string, error) {
	set, err := d.Client.AppsV1().DaemonSets(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pods, err := d.Client.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(set.Spec.Selector)})
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, pod := range pods.Items {
		if !d.hasRemoved(&pod) && !slices.Contains(nodes, pod.Spec.NodeName) {
			nodes = append(nodes, pod.Spec.NodeName)
		}
	}
	slices.Sort(nodes)
	if len(nodes) == 0 {
		nodes = []string{"those that have no pod yet"}
	}
	return nodes, nil
}

func (d DaemonSet) hasRemoved(pod *corev1.Pod) bool {
	removes := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == d.Container && slices.Equal(c.Args, d.Args)
	})
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	return removes && ready
}
