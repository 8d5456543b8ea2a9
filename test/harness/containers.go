package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ContainerID is what the node's container runtime calls a container of a pod,
// whether it runs or has ended. It is empty before the container was started.
func ContainerID(pod *corev1.Pod, container string) string {
	for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if s.Name == container {
			return strings.TrimPrefix(s.ContainerID, "containerd://")
		}
	}
	return ""
}

// RunningContainers returns the ids of the containers of that name that run on
// the node, of all pods of the namespace or, if pod is not empty, of one. It
// asks the node, not the API, so it works while the node is cut off.
func (c *Cluster) RunningContainers(ctx context.Context, namespace, pod, container string) ([]string, error) {
	filter := fmt.Sprintf(`labels."io.kubernetes.pod.namespace"==%q,labels."io.kubernetes.container.name"==%q`, namespace, container)
	if pod != "" {
		filter += fmt.Sprintf(`,labels."io.kubernetes.pod.name"==%q`, pod)
	}
	known, err := c.ctr(ctx, "containers", "list", "--quiet", filter)
	if err != nil {
		return nil, fmt.Errorf("listing the node's containers: %w", err)
	}
	tasks, err := c.ctr(ctx, "tasks", "list")
	if err != nil {
		return nil, fmt.Errorf("listing what runs in the node's containers: %w", err)
	}
	var ids []string
	for line := range strings.Lines(tasks) {
		columns := strings.Fields(line) // container, pid, state
		if len(columns) == 3 && columns[2] == "RUNNING" && slices.Contains(strings.Fields(known), columns[0]) {
			ids = append(ids, columns[0])
		}
	}
	return ids, nil
}

// KillContainer sends SIGKILL to a container, behind kubelet's back. One that
// has ended already is no error.
func (c *Cluster) KillContainer(ctx context.Context, id string) error {
	_, err := c.ctr(ctx, "tasks", "kill", "--signal", "SIGKILL", id)
	if err != nil && !strings.Contains(err.Error(), "not found") && !strings.Contains(err.Error(), "process already finished") {
		return fmt.Errorf("killing container %s: %w", id, err)
	}
	return nil
}

// StopContainer sends SIGTERM to a container, behind kubelet's back.
func (c *Cluster) StopContainer(ctx context.Context, id string) error {
	if _, err := c.ctr(ctx, "tasks", "kill", "--signal", "SIGTERM", id); err != nil {
		return fmt.Errorf("stopping container %s: %w", id, err)
	}
	return nil
}

// RunInContainer runs a program in a container and returns what it printed. It
// works while the node is cut off, when kubectl exec does not.
func (c *Cluster) RunInContainer(ctx context.Context, id string, program ...string) (string, error) {
	// Names of such programs must differ only while they run.
	out, err := c.ctr(ctx, append([]string{"tasks", "exec", "--exec-id", "test", id}, program...)...)
	if err != nil {
		return "", fmt.Errorf("running %s in container %s: %w", program[0], id, err)
	}
	return out, nil
}

// TagImage gives an image on the node one more name.
func (c *Cluster) TagImage(ctx context.Context, image, name string) error {
	if _, err := c.ctr(ctx, "images", "tag", "--force", image, name); err != nil {
		return fmt.Errorf("giving image %s the name %s: %w", image, name, err)
	}
	return nil
}

// ctr runs the client of the node's container runtime.
func (c *Cluster) ctr(ctx context.Context, args ...string) (string, error) {
	return c.OnNode(ctx, append([]string{"ctr", "--namespace", "k8s.io"}, args...)...)
}

// Sandbox returns the id of the container that holds the pod's network
// namespace. A pod has one at a time.
func (c *Cluster) Sandbox(ctx context.Context, namespace, pod string) (string, error) {
	filter := fmt.Sprintf(`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.namespace"==%q,labels."io.kubernetes.pod.name"==%q`, namespace, pod)
	out, err := c.ctr(ctx, "containers", "list", "--quiet", filter)
	if err != nil {
		return "", fmt.Errorf("looking for the sandbox of pod %s/%s: %w", namespace, pod, err)
	}
	ids := strings.Fields(out)
	if len(ids) != 1 {
		return "", fmt.Errorf("pod %s/%s has %d sandboxes, want 1", namespace, pod, len(ids))
	}
	return ids[0], nil
}
