package guest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// slowPlugin is an IPAM plugin that claims may name and the node does not have:
// tests put their own in its place.
const slowPlugin = "/opt/cni/bin/whereabouts"

// attaching is made on the node by the IPAM plugin that hangs.
const attaching = "/run/attaching"

// hangs makes attaching wait for an IPAM plugin that never answers, and returns
// what ends that.
func (s *space) hangs() (stop func()) {
	s.t.Helper()
	install := func(does string) {
		s.t.Helper()
		s.guest("sh", "-c", "printf '#!/bin/sh\\n"+does+"\\n' > "+slowPlugin+".new && chmod 0755 "+slowPlugin+".new && mv "+slowPlugin+".new "+slowPlugin)
	}
	s.guest("rm", "-f", attaching)
	install("[ $CNI_COMMAND = ADD ] || exit 0\\n: > " + attaching + "\\nexec sleep 3600")
	s.t.Cleanup(func() { s.guest("rm", "-f", slowPlugin, attaching) })
	return func() { install("exit 0") }
}

// waitAttaching returns when an attachment hangs.
func (s *space) waitAttaching() {
	s.t.Helper()
	s.until("attaching", func() error {
		_, err := onNode(s.ctx, "ls", attaching)
		return err
	})
}

// killPlugin ends the driver's process as a crash does.
func (s *space) killPlugin() {
	s.t.Helper()
	s.guest("sh", "-c", "kill -9 $(pidof kubelet-plugin)")
}

// replacePlugin deletes the driver's pod, since one that was killed is started
// again later and later, and returns when another one is ready.
func (s *space) replacePlugin() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	pods, err := world.PluginPods(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range pods {
		if err := world.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
			s.t.Fatalf("deleting pod %s: %v", pod.Name, err)
		}
		if err := world.WaitPluginPod(ctx, pod.UID); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := world.WaitDriver(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// stopPlugin takes the driver from the node, and returns what brings it back.
func (s *space) stopPlugin() (start func()) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	s.t.Cleanup(cancel)
	patch := func(value string) {
		s.t.Helper()
		body := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"nodeSelector":{"guest/nowhere":%s}}}}}`, value)
		if _, err := world.Client.AppsV1().DaemonSets(harness.Namespace).Patch(ctx, harness.Plugin, types.StrategicMergePatchType, body, metav1.PatchOptions{}); err != nil {
			s.t.Error(err)
		}
	}
	started := false
	start = func() {
		s.t.Helper()
		if started {
			return
		}
		started = true
		patch("null")
		if err := world.WaitDriver(ctx); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(start)
	patch(`"true"`)
	s.until("without the driver", func() error {
		pods, err := world.PluginPods(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods of the driver are left", len(pods))
		}
		return err
	})
	return start
}

func TestAllVFsAreBackAfterThePluginWasKilled(t *testing.T) {
	tests := []struct {
		when, fields string
		reach        func(s *space)
	}{
		{"before attaching", "", func(s *space) { s.wait("killed", initRuns("before")) }},
		{"while attaching", `"vlan":176,"ipam":{"type":"whereabouts"}`, (*space).waitAttaching},
		{"after attaching", `"vlan":177,"mac":"02:00:00:76:00:01","mtu":1400`, func(s *space) { s.wait("killed", harness.Running()) }},
	}
	for _, test := range tests {
		t.Run(test.when, func(t *testing.T) {
			s := newSpace(t)
			s.waitPublished()
			before := s.host()
			stop := s.hangs()
			s.template("one", vfs(1, test.fields))
			pod := vfPod("killed", "one")
			if test.fields == "" {
				pod.Spec.InitContainers = []corev1.Container{{Name: "before", Image: busybox, Command: []string{"sleep", "infinity"}}}
			}
			s.create(pod)
			test.reach(s)
			s.killPlugin()
			s.delete("killed")
			stop()
			s.replacePlugin()
			s.end()
			s.wantHost(before)
			s.waitPublished()
			// Every one can be had.
			s.template("all", vfs(allVFs, ""))
			s.create(vfPod("all", "all"))
			s.wait("all", harness.Running())
			s.wantInterface("all", fmt.Sprint("net", allVFs))
			s.end()
			s.wantHost(before)
		})
	}
}

// A pod that is never restarted would fail for good if its hook did not wait.
func TestAPodThatIsNeverRestartedStartsThoughThePluginIsAwayFor20Seconds(t *testing.T) {
	const away = 20 * time.Second
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	s.template("one", vfs(1, ""))
	pod := vfPod("once", "one")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	// By the time that it runs, the claim is prepared.
	pod.Spec.InitContainers = []corev1.Container{{Name: "before", Image: busybox, Command: []string{"sleep", "infinity"}}}
	s.create(pod)
	id := harness.ContainerID(s.wait("once", initRuns("before")), "before")
	start := s.stopPlugin()
	s.guest("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGTERM", id)
	s.until("waiting for the plugin", func() error {
		_, err := onNode(s.ctx, "pidof", "attach-hook")
		return err
	})
	select {
	case <-time.After(away):
	case <-t.Context().Done():
	}
	if now := s.wait("once", initEnded("before")); now.Status.Phase != corev1.PodPending {
		t.Errorf("the pod is %s without the plugin", now.Status.Phase)
	}
	start()
	s.wait("once", harness.Running())
	s.wantInterface("once", "net1", "UP")
	s.end()
	s.wantHost(before)
}

// initRuns is met while the init container runs.
func initRuns(name string) harness.PodCondition {
	return harness.PodCondition{Name: "run init container " + name, Met: func(pod *corev1.Pod) (bool, error) {
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == name {
				return status.State.Running != nil, nil
			}
		}
		return false, nil
	}}
}

// initEnded is met when the init container has ended well.
func initEnded(name string) harness.PodCondition {
	return harness.PodCondition{Name: "end init container " + name, Met: func(pod *corev1.Pod) (bool, error) {
		if pod.Status.Phase == corev1.PodFailed {
			return false, errors.New("it has failed")
		}
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == name {
				return status.State.Terminated != nil && status.State.Terminated.ExitCode == 0, nil
			}
		}
		return false, nil
	}}
}
