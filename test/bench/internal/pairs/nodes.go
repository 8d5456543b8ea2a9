package pairs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// simulatedLabel is on the nodes, and on their slices, that exist in the API
// only.
const simulatedLabel = "eks-hybrid-dra.test/simulated"

func simulatedOnly() metav1.ListOptions { return metav1.ListOptions{LabelSelector: simulatedLabel} }

// addNodes makes nodes, and publishes for each what the driver publishes for the
// real one.
func (s *Suite) addNodes(ctx context.Context) error {
	if err := s.removeNodes(ctx); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelism)
	for i := range fewNodes {
		group.Go(func() error { return s.addNode(groupCtx, simulatedNode(i)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.awaitQuiet(ctx)
}

// awaitQuiet returns when Kubernetes has looked at all nodes and found that they
// are not just starting: it takes away the taint that it gives new ones.
func (s *Suite) awaitQuiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	starting := 0
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		nodes, err := s.Cluster.Client.CoreV1().Nodes().List(ctx, simulatedOnly())
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

func (s *Suite) addNode(ctx context.Context, name string) error {
	client := s.Cluster.Client
	if _, err := client.CoreV1().Nodes().Create(ctx, lifelessNode(name), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create node %s: %w", name, err)
	}
	for _, slice := range s.machine.as(name) {
		slice.Labels = map[string]string{simulatedLabel: ""}
		if _, err := client.ResourceV1().ResourceSlices().Create(ctx, slice, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("publish slice %s: %w", slice.Name, err)
		}
	}
	return nil
}

// lifelessNode has room for pods and no kubelet. It is from the start as
// Kubernetes would make it within a minute, so that nothing changes while pods
// are placed: unreachable, which they tolerate.
func lifelessNode(name string) *corev1.Node {
	node := nodeNamed(name)
	node.Labels = map[string]string{simulatedLabel: ""}
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

// removeNodes removes the nodes and their slices, also those of an earlier run
// that was cut off.
func (s *Suite) removeNodes(ctx context.Context) error {
	client := s.Cluster.Client
	err := errors.Join(
		client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, simulatedOnly()),
		client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, simulatedOnly()),
	)
	if err != nil {
		return fmt.Errorf("remove the simulated nodes: %w", err)
	}
	return nil
}
