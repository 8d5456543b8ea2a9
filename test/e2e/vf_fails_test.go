package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestAPodWhoseVFCannotBeAttachedDoesNotStartAndSaysWhy(t *testing.T) {
	tests := map[string]struct {
		fields string
		change func(pod *corev1.Pod)
		says   []string
	}{
		"two claims for one interface name": {
			fields: `"ifName":"twice0"`,
			change: func(pod *corev1.Pod) {
				pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: "other", ResourceClaimTemplateName: ptr.To("one")})
				pod.Spec.Containers[0].Resources.Claims = append(pod.Spec.Containers[0].Resources.Claims, corev1.ResourceClaim{Name: "other"})
			},
			says: []string{"vf-0000-", "twice0"},
		},
		"host network": {
			change: func(pod *corev1.Pod) { pod.Spec.HostNetwork = true },
			says:   []string{"vf-0000-", "hostNetwork"},
		},
		"VLAN protocol that the NIC refuses": {fields: `"vlan":5,"proto":"802.1ad"`, says: []string{"vf-0000-", "802.1ad", "protocol not supported"}},
		"IPAM plugin that fails":             {fields: `"ipam":{"type":"dhcp"}`, says: []string{"vf-0000-", "dhcp"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t, nil)
			s.template("one", vfs(1, test.fields))
			pod := vfPod("refused", "one")
			if test.change != nil {
				test.change(pod)
			}
			s.create(pod)
			s.wantRefused("refused", "work", test.says...)
		})
	}
}

func TestAPodWhoseVFIsNeverAttachedDoesNotStart(t *testing.T) {
	s := newSpace(t, nil)
	const plugin = "/opt/cni/bin/whereabouts" // the tests' nodes have no such plugin
	install := func(does string) {
		_, err := cluster.OnNode(s.ctx, "sh", "-c", "printf '#!/bin/sh\\n"+does+"\\n' > "+plugin+".new && chmod 0755 "+plugin+".new && mv "+plugin+".new "+plugin)
		needNode(t, err)
	}
	t.Cleanup(func() {
		if _, err := cluster.OnNode(context.Background(), "rm", "-f", plugin); err != nil {
			t.Error(err)
		}
	})
	install("exec sleep 3600")
	s.template("one", vfs(1, `"ipam":{"type":"whereabouts"}`))
	s.create(vfPod("waits", "one"))
	start := time.Now()
	s.wantRefused("waits", "work", "vf-0000-", "whereabouts")
	t.Logf("the container was given up after %v", time.Since(start))
	s.until("told by the claim's status that attaching has failed", func() error {
		status := s.claim("waits").Status.Devices
		if len(status) != 1 || !meta.IsStatusConditionTrue(status[0].Conditions, "AttachFailed") {
			return fmt.Errorf("the claim's status has %+v", status)
		}
		return nil
	})
	s.admin()
	s.wantAllVFsOnTheHost()
	// What a plugin has given out is taken back before the claim ends.
	install("exit 0")
	s.delete("waits")
	s.waitGone("waits")
	wantNothingLeft(t)
}

// wantRefused fails the test unless an event of the pod says all of the texts,
// and the container never ran.
func (s *space) wantRefused(pod, container string, says ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	event, err := cluster.WaitEvent(ctx, s.name, pod, says[0])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range says {
		if !strings.Contains(event.Message, text) {
			s.t.Errorf("the event does not say %q: %s", text, event.Message)
		}
	}
	got := s.wait(pod, harness.PodCondition{Name: "have been refused", Met: func(pod *corev1.Pod) (bool, error) {
		for _, status := range pod.Status.ContainerStatuses {
			if status.Name != container {
				continue
			}
			if status.State.Running != nil {
				return false, errors.New("its container runs")
			}
			return status.State.Waiting != nil || status.State.Terminated != nil, nil
		}
		return false, nil
	}})
	if got.Status.Phase == corev1.PodRunning || got.Status.Phase == corev1.PodSucceeded {
		s.t.Errorf("the pod is %s", got.Status.Phase)
	}
}

// A pod that is never restarted would fail for good if its hook did not wait.
func TestAPodThatIsNeverRestartedStartsThoughThePluginIsAwayFor20Seconds(t *testing.T) {
	const away = 20 * time.Second
	s := newSpace(t, nil)
	s.template("one", vfs(1, ""))
	pod := vfPod("once", "one")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	// By the time that it runs, the claim is prepared.
	pod.Spec.InitContainers = []corev1.Container{{Name: "before", Image: busybox, Command: []string{"sleep", "15"}}}
	s.create(pod)
	s.wait("once", initRuns("before"))
	start := s.stopPlugin()
	s.wait("once", initEnded("before"))
	s.pause(away)
	if now := s.wait("once", scheduled()); now.Status.Phase != corev1.PodPending {
		t.Errorf("the pod is %s without the plugin", now.Status.Phase)
	}
	start()
	s.wait("once", harness.Running())
	s.wantInterface("once", "net1")
}

// A container that starts again in a pod that has its VFs needs no plugin.
func TestAContainerStartsAgainWithoutThePlugin(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", vfs(1, `"addresses":["10.75.0.1/24"]`))
	s.create(vfPod("again", "one"))
	s.wait("again", harness.Running())
	s.stopPlugin()
	began := time.Now()
	s.killContainer("again", "work")
	took := time.Since(began)
	t.Logf("the container ran again after %v", took)
	if took > 20*time.Second {
		t.Errorf("the container ran again after %v: it has waited for the plugin", took)
	}
	s.wantInterface("again", "net1", "10.75.0.1/24")
}

func TestNoVFIsLostWhenThePluginIsKilledAndPodsAreDeletedMeanwhile(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", vfs(1, `"vlan":176,"mtu":1400`))
	s.template("two", vfs(2, `"addresses":["10.76.0.1/24"]`))
	pods := []string{"a", "b", "c", "d"}
	for round := range 3 {
		for i, name := range pods {
			s.create(vfPod(fmt.Sprint(name, round), []string{"one", "two"}[i%2]))
		}
		if round == 0 {
			for _, name := range pods {
				s.wait(fmt.Sprint(name, round), harness.Running())
			}
		} else {
			// Any moment: while the claims are prepared, or the VFs attached.
			s.pause(time.Duration(round) * 700 * time.Millisecond)
		}
		killed := s.killPlugin()
		for _, name := range pods {
			s.delete(fmt.Sprint(name, round))
		}
		s.deletePlugin() // a new pod starts at once
		s.waitPluginRuns(killed)
		for _, name := range pods {
			s.waitGone(fmt.Sprint(name, round))
		}
	}
	s.waitDriver()
	s.admin()
	s.wantAllVFsOnTheHost()
	s.wantVFsPublished()
	wantNothingLeft(t)
	// Every one can be had.
	s.template("all", vfs(vfsPerNode/2, ""))
	for _, name := range []string{"half", "other-half"} {
		pod := vfPod(name, "all")
		s.create(pod)
	}
	for _, name := range []string{"half", "other-half"} {
		s.wait(name, harness.Running())
	}
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
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == name {
				return status.State.Terminated != nil && status.State.Terminated.ExitCode == 0, nil
			}
		}
		return false, nil
	}}
}
