package workload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is how far the DaemonSet's pod is on a node.
type Node struct {
	Name string
	// Done says that the pod runs the other thing, and is ready, and that no
	// other pod of the DaemonSet is left there.
	Done bool
	// Why says in words what is missing.
	Why string
}

// Nodes returns the nodes that have pods of the DaemonSet, by name, and how many
// it is to have. A DaemonSet that is gone has none.
func (d DaemonSet) Nodes(ctx context.Context) (nodes []Node, wanted int, err error) {
	set, err := d.get(ctx)
	if err != nil || set == nil {
		return nil, 0, err
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return nil, 0, fmt.Errorf("selector of DaemonSet %s/%s: %w", d.Namespace, d.Name, err)
	}
	pods, err := d.Client.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, 0, fmt.Errorf("list the pods of DaemonSet %s/%s: %w", d.Namespace, d.Name, err)
	}
	wanted = int(set.Status.DesiredNumberScheduled)
	if set.Status.ObservedGeneration < set.Generation {
		wanted = max(wanted, 1) // not looked at yet: it may be meant for any node
	}
	byName := map[string]Node{}
	for _, pod := range pods.Items {
		name := cmp.Or(pod.Spec.NodeName, "(none yet)")
		why := d.missing(&pod)
		node, seen := byName[name]
		node.Name = name
		node.Done = why == "" && (!seen || node.Done)
		node.Why = cmp.Or(node.Why, why)
		byName[name] = node
	}
	for _, node := range byName {
		nodes = append(nodes, node)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, wanted, nil
}

// missing says what a pod lacks to be done.
func (d DaemonSet) missing(pod *corev1.Pod) string {
	runs := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == d.Container && d.switched(c.Args) })
	switch {
	case pod.DeletionTimestamp != nil:
		return fmt.Sprintf("pod %s has not ended yet", pod.Name)
	case !runs:
		return fmt.Sprintf("pod %s is not replaced yet", pod.Name)
	case ready(pod):
		return ""
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name != d.Container {
			continue
		}
		if ended := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated); ended != nil && ended.ExitCode != 0 {
			return fmt.Sprintf("pod %s failed: %s", pod.Name, cmp.Or(lastLine(ended.Message), "see its log"))
		}
		if w := s.State.Waiting; w != nil {
			return fmt.Sprintf("pod %s waits: %s", pod.Name, strings.TrimSpace(w.Reason+" "+w.Message))
		}
	}
	return fmt.Sprintf("pod %s is not done yet: its log says why", pod.Name)
}

// lastLine of a log is the error with which a program has ended.
func lastLine(log string) string {
	log = strings.TrimSpace(log)
	return log[strings.LastIndex(log, "\n")+1:]
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
