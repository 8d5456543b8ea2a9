package e2e

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestARestartOfThePluginDisturbsNothing(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	used := s.gpus("user", "show", 1)[0]
	lost := watchSlices(t)
	names := deviceNames(t)

	plugin, err := cluster.PluginPod(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Client.CoreV1().Pods(plugin.Namespace).Delete(s.ctx, plugin.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("deleting the plugin's pod: %v", err)
	}
	waitForNewPlugin(s, plugin.UID)

	if diff := cmp.Diff(names, deviceNames(t)); diff != "" {
		t.Errorf("devices (-before the restart +after):\n%s", diff)
	}
	if slices := lost(); len(slices) > 0 {
		t.Errorf("slices %v were deleted meanwhile", slices)
	}
	wantUndisturbed(t, before, s.wait("user", harness.Running()))

	// The new plugin knows what the old one prepared.
	s.template("same", gpus(1, byUUID(used)))
	s.pod("rival", "same")
	s.wait("rival", harness.Unschedulable())
	s.delete("user")
	s.wait("rival", harness.Running())
}

func TestAPodRunsAgainWithItsGPUAfterAReboot(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	used := s.gpus("user", "show", 1)

	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	needNode(t, cluster.Reboot(ctx))
	s.wait("user", harness.PodCondition{Name: "run again", Met: func(pod *corev1.Pod) (bool, error) {
		again, err := harness.Running().Met(pod)
		return again && pod.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID, err
	}})
	if diff := cmp.Diff(used, harness.GPUs(s.exec("user", "nvidia-smi", "-L"))); diff != "" {
		t.Errorf("GPUs (-before the reboot +after):\n%s", diff)
	}
	if err := cluster.WaitDriver(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.WaitDevices(ctx, gpusPerNode); err != nil {
		t.Error(err)
	}
}

// waitForNewPlugin returns when a pod of the plugin other than the old one is
// ready.
func waitForNewPlugin(s *space, old types.UID) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.WaitPluginPod(ctx, old); err != nil {
		s.t.Fatal(err)
	}
}

// wantUndisturbed fails the test if a container of the pod was restarted.
func wantUndisturbed(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	for i, container := range after.Status.ContainerStatuses {
		if id := before.Status.ContainerStatuses[i].ContainerID; container.ContainerID != id {
			t.Errorf("container %s of pod %s was restarted", container.Name, after.Name)
		}
	}
}

// deviceNames are the devices as the scheduler sees them.
func deviceNames(t *testing.T) []string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, device := range devices {
		names = append(names, device.Name+" "+value(device.Attributes["uuid"]))
	}
	return names
}

// watchSlices returns a function that tells which slices of the driver were
// deleted since.
func watchSlices(t *testing.T) func() []string {
	t.Helper()
	list, err := cluster.Client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := cluster.Client.ResourceV1().ResourceSlices().Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	deleted := make(chan []string, 1)
	go func() {
		var names []string
		for event := range watcher.ResultChan() {
			if slice, ok := event.Object.(*resourceapi.ResourceSlice); ok && event.Type == watch.Deleted {
				names = append(names, slice.Name)
			}
		}
		deleted <- names
	}()
	return func() []string {
		watcher.Stop()
		return <-deleted
	}
}
