package published

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	// Label is on the nodes, and on their slices, that exist in the API only.
	Label = "eks-hybrid-dra.test/simulated"
	// patience is how long one step may take, also on a busy machine.
	patience = 5 * time.Minute
	// parallelism is how many nodes are made at a time.
	parallelism = 16
)

func only() metav1.ListOptions { return metav1.ListOptions{LabelSelector: Label} }

// Add makes nodes, many at a time, and publishes devices for each. Without hearts
// they are from the start what Kubernetes would make of them within a minute, so
// that nothing changes while pods are placed: unreachable.
func Add(ctx context.Context, client kubernetes.Interface, names []string, slices func(node string) []*resourceapi.ResourceSlice, hearts *Hearts) error {
	nodeOf := lifelessNode
	if hearts != nil {
		nodeOf = readyNode
		if err := hearts.Add(ctx, names); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelism)
	for _, name := range names {
		group.Go(func() error { return addNode(groupCtx, client, nodeOf(name), slices(name)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return awaitQuiet(ctx, client)
}

// awaitQuiet returns when Kubernetes has looked at all nodes and found that they
// are not just starting: it takes away the taint that it gives new ones.
func awaitQuiet(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	starting := 0
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		nodes, err := client.CoreV1().Nodes().List(ctx, only())
		if err != nil {
			return false, err
		}
		starting = 0
		for _, node := range nodes.Items {
			if slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady }) {
				starting++
			}
		}
		return starting == 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait until Kubernetes knows the nodes, of which %d have still the taint %s: %w", starting, corev1.TaintNodeNotReady, err)
	}
	return nil
}

func addNode(ctx context.Context, client kubernetes.Interface, node *corev1.Node, slices []*resourceapi.ResourceSlice) error {
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create node %s: %w", node.Name, err)
	}
	for _, slice := range slices {
		slice.Labels = map[string]string{Label: ""}
		if _, err := client.ResourceV1().ResourceSlices().Create(ctx, slice, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("publish slice %s: %w", slice.Name, err)
		}
	}
	return nil
}

// lifelessNode has room for pods and no kubelet. Pods that tolerate unreachable
// nodes can be placed on it.
func lifelessNode(name string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node.Labels = map[string]string{Label: ""}
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: effect})
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("224"), corev1.ResourceMemory: resource.MustParse("2Ti"), corev1.ResourcePods: resource.MustParse("110"),
	}
	node.Status = corev1.NodeStatus{Capacity: room, Allocatable: room}
	for _, kind := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
			Type: kind, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status.",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		})
	}
	return node
}

// Remove removes the nodes and their slices, also those of an earlier run
// that was cut off.
func Remove(ctx context.Context, client kubernetes.Interface) error {
	err := errors.Join(
		client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, only()),
		client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, only()),
		client.CoordinationV1().Leases(corev1.NamespaceNodeLease).DeleteCollection(ctx, metav1.DeleteOptions{}, only()),
	)
	if err != nil {
		return fmt.Errorf("remove the simulated nodes: %w", err)
	}
	return nil
}
