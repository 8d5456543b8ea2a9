package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	gpuResource = "nvidia.com/gpu"
	vfResource  = "nvidia.com/vf"
	// servesGPUs has the device plugin serve the node's GPUs.
	servesGPUs = "devicePlugin: {kinds: [gpu], settle: 1s}"
	// nothingMore leaves the configuration as it is.
	nothingMore = ""
)

// needDevicePlugin gives the plugin the folders of the node that it needs to serve
// extended resources, until the test ends.
func (s *space) needDevicePlugin() {
	s.t.Helper()
	_, err := cluster.OnNode(s.ctx, "true")
	needNode(s.t, err)
	s.become("test/e2e/testdata/device-plugin")
}

// resourcePod returns a pod that has so many GPUs as an extended resource, and
// lives on. It has no container that has ended: a kubelet that starts ends pods
// with such a container if it knows no healthy device of the resource yet,
// whichever device plugin that is of (devicesToAllocate in
// pkg/kubelet/cm/devicemanager/manager.go of Kubernetes 1.37).
func resourcePod(name string, count int64) *corev1.Pod {
	pod := newPod(name, "")
	pod.Spec.ResourceClaims, pod.Spec.InitContainers = nil, nil
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{gpuResource: *resource.NewQuantity(count, resource.DecimalSI)}}
	return pod
}

// endPods ends the namespace's pods, so that their devices are free when the
// configuration is as it was before the test.
func (s *space) endPods() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.Client.CoreV1().Pods(s.name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		s.t.Error(err)
	}
	if err := cluster.WaitPodsGone(ctx, s.name); err != nil {
		s.t.Error(err)
	}
}

// runWithGPU runs a pod that has a GPU as an extended resource.
func (s *space) runWithGPU(name string) *corev1.Pod {
	s.t.Helper()
	s.create(resourcePod(name, 1))
	return s.wait(name, harness.Running())
}

// waitAllocatable waits until the node has so many of a resource to give, and so
// many all in all. A node that has none to give may have any number in all.
func (s *space) waitAllocatable(name string, allocatable, capacity int64) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d of %d %s to give", allocatable, capacity, name), func() error {
		nodes, err := cluster.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		status := nodes.Items[0].Status
		left, all := status.Allocatable[corev1.ResourceName(name)], status.Capacity[corev1.ResourceName(name)]
		if left.Value() != allocatable || allocatable > 0 && all.Value() != capacity {
			return fmt.Errorf("the node has %s of %s", left.String(), all.String())
		}
		return nil
	})
}

// waitPublished waits until just these GPUs are offered to claims.
func (s *space) waitPublished(uuids []string) {
	s.t.Helper()
	want := slices.Sorted(slices.Values(uuids))
	s.until("published", func() error {
		devices, err := cluster.Devices(s.ctx)
		if err != nil {
			return err
		}
		got := []string{}
		for _, d := range devices {
			got = append(got, value(d.Attributes["uuid"]))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("%d GPUs are offered to claims, want %d: %v", len(got), len(want), got)
		}
		return nil
	})
}

// gpuBooks know which container has had which GPU.
type gpuBooks struct {
	s     *space
	lives *harness.Lives
	uses  []use
}

func (s *space) openBooks() *gpuBooks { return &gpuBooks{s: s, lives: watchContainers(s)} }

// enter notes the GPUs of a pod that runs, as its container sees them, and returns
// them.
func (l *gpuBooks) enter(pod *corev1.Pod, want int) []string {
	l.s.t.Helper()
	seen := harness.GPUs(l.s.exec(pod.Name, "nvidia-smi", "-L"))
	if len(seen) != want {
		l.s.t.Fatalf("pod %s sees the GPUs %v, want %d", pod.Name, seen, want)
	}
	for _, gpu := range seen {
		l.uses = append(l.uses, use{pod: pod.Name, gpu: gpu, container: harness.ContainerID(pod, "work")})
	}
	return seen
}

// check fails the test if two containers had a GPU at the same time.
func (l *gpuBooks) check() {
	l.s.t.Helper()
	for n, a := range l.uses {
		for _, b := range l.uses[n+1:] {
			if a.gpu != b.gpu || a.container == b.container {
				continue
			}
			first, second := l.s.life(l.lives, a.container, started), l.s.life(l.lives, b.container, started)
			if first.Made.After(second.Made) {
				a, b, first, second = b, a, second, first
			}
			if first.Ended.IsZero() || !second.Made.After(first.Ended) {
				l.s.t.Errorf("GPU %s was given to pod %s at %v, though pod %s had it until %v", a.gpu, b.pod, second.Made, a.pod, first.Ended)
			}
		}
	}
}

// waitNoDevicePluginFiles waits until nothing of the device plugin is on the node.
func (s *space) waitNoDevicePluginFiles() {
	s.t.Helper()
	s.until("clean", func() error {
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		defer cancel()
		out, err := cluster.OnNode(ctx, "sh", "-c", "ls -d /var/run/cdi/*deviceplugin* /var/run/k8s.cni.cncf.io/devinfo/dp/* /var/lib/kubelet/device-plugins/eks-hybrid-dra-* "+dataDir+"/devices/*.json 2>/dev/null || true")
		if err != nil {
			return err
		}
		if out != "" {
			return errors.New("left on the node:\n" + out)
		}
		return nil
	})
}

// vfResourcePod returns a pod that has so many VFs as an extended resource.
func vfResourcePod(name string, count int64) *corev1.Pod {
	pod := vfPod(name, "")
	pod.Spec.ResourceClaims = nil
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{vfResource: *resource.NewQuantity(count, resource.DecimalSI)}}
	return pod
}

// environment returns the variables of a pod's container whose names begin so.
func (s *space) environment(pod, prefix string) map[string]string {
	s.t.Helper()
	variables := map[string]string{}
	for _, variable := range strings.Split(s.exec(pod, "cat", "/proc/1/environ"), "\x00") {
		if name, content, ok := strings.Cut(variable, "="); ok && strings.HasPrefix(name, prefix) {
			variables[name] = content
		}
	}
	return variables
}

func allUUIDs(t *testing.T) []string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var uuids []string
	for _, d := range devices {
		uuids = append(uuids, value(d.Attributes["uuid"]))
	}
	return uuids
}
