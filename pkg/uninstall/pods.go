package uninstall

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// guard returns an [InUseError] if anybody has a device of the driver.
func (u *uninstaller) guard(ctx context.Context) error {
	lines, err := claimsInUse(ctx, u.Client, u.DriverName)
	if err != nil {
		return err
	}
	pods, err := u.podsInUse(ctx)
	if err != nil {
		return err
	}
	if lines = append(lines, pods...); len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return &InUseError{Users: lines}
}

// podsInUse describes the pods that have devices without a claim: those on nodes
// of the plugin that ask for a resource that it serves there.
func (u *uninstaller) podsInUse(ctx context.Context) (lines []string, err error) {
	if len(u.Resources) == 0 || u.Plugin == "" {
		return nil, nil
	}
	nodes, _, err := u.plugin.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		list, err := u.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node.Name).String()})
		if err != nil {
			return nil, fmt.Errorf("look for pods on node %s that have devices without a claim: %w", node.Name, err)
		}
		for _, pod := range list.Items {
			if has := u.resourcesOf(&pod); len(has) > 0 && pod.Spec.NodeName == node.Name {
				lines = append(lines, fmt.Sprintf("%s/%s: pod on %s with %s", pod.Namespace, pod.Name, node.Name, strings.Join(has, ", ")))
			}
		}
	}
	return lines, nil
}

// resourcesOf are those of the plugin's resources that a pod has. One whose
// claims stand for them is described by these.
func (u *uninstaller) resourcesOf(pod *corev1.Pod) (has []string) {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.Status.ExtendedResourceClaimStatus != nil {
		return nil
	}
	for _, resource := range u.Resources {
		asks := func(c corev1.Container) bool {
			quantity, ok := c.Resources.Limits[corev1.ResourceName(resource)]
			return ok && !quantity.IsZero()
		}
		if slices.ContainsFunc(pod.Spec.Containers, asks) || slices.ContainsFunc(pod.Spec.InitContainers, asks) {
			has = append(has, resource)
		}
	}
	return has
}
