package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const linkDown = "LinkDown"

// A cable is pulled, and put in again: nobody new gets a VF of that port, who
// has one is told and goes on, and then everything is as before.
func TestAVFWhosePortHasNoLink(t *testing.T) {
	s := newSpace(t, nil)
	tells := keepsTaintsAndTellsHealth(t)
	s.admin()
	s.template("any", vfs(1, ""))
	s.create(vfPod("user", "any"))
	before := s.wait("user", harness.Running())
	if tells {
		s.wantHealth("user", corev1.ResourceHealthStatusHealthy, "")
	}

	port := s.portOf("user")
	plug := port + "p" // the other end of the simulated port's cable
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// The pod may be gone already, and the link is up then.
		_, _ = cluster.Kubectl(ctx, "exec", "-n", s.name, "admin", "--", "ip", "link", "set", plug, "up")
	})
	s.exec("admin", "ip", "link", "set", plug, "down")
	s.wantOffered(port, tells, false)
	s.template("same-port", vfs(1, "", ofPort(port)))
	s.create(vfPod("next", "same-port"))
	s.wait("next", harness.Unschedulable())
	if tells {
		s.wantHealth("user", corev1.ResourceHealthStatusUnhealthy, linkDown)
		tolerant := vfs(1, "", ofPort(port))
		tolerant.Devices.Requests[0].Exactly.Tolerations = []resourceapi.DeviceToleration{{Key: v1alpha1.TaintUnhealthy, Operator: resourceapi.DeviceTolerationOpExists}}
		s.template("tolerant", tolerant)
		s.create(vfPod("tolerant", "tolerant"))
		s.wait("tolerant", harness.Running())
	}

	s.exec("admin", "ip", "link", "set", plug, "up")
	s.wantOffered(port, tells, true)
	s.wait("next", harness.Running())
	if tells {
		s.wantHealth("user", corev1.ResourceHealthStatusHealthy, "")
	}
	wantSameContainers(t, before, s.wait("user", harness.Running()))
}

// keepsTaintsAndTellsHealth is for what Kubernetes has on since 1.36.
func keepsTaintsAndTellsHealth(t *testing.T) bool {
	t.Helper()
	server, err := cluster.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	return version.MustParseGeneric(server.GitVersion).AtLeast(version.MajorMinor(1, 36))
}

func ofPort(port string) string {
	return fmt.Sprintf("device.attributes['%s'].pfName == '%s'", harness.DriverName, port)
}

// portOf returns the port of the VF that the pod has.
func (s *space) portOf(pod string) string {
	s.t.Helper()
	name := s.claim(pod).Status.Allocation.Devices.Results[0].Device
	for _, device := range vfDevices(s.t) {
		if device.Name == name {
			return ptr.Deref(device.Attributes["pfName"].StringValue, "")
		}
	}
	s.t.Fatalf("device %s of pod %s is not published", name, pod)
	return ""
}

// wantOffered waits until the port's VFs are on offer, or are not, and all
// others are. An API server that does not keep taints has no VF that is not on
// offer.
func (s *space) wantOffered(port string, tainting, offered bool) {
	s.t.Helper()
	eventually(s.t, "as offered", func() error {
		ofPort, others := 0, 0
		for _, device := range vfDevices(s.t) {
			sick := false
			for _, taint := range device.Taints {
				sick = sick || taint.Key == v1alpha1.TaintUnhealthy && taint.Value == linkDown &&
					taint.Effect == resourceapi.DeviceTaintEffectNoSchedule && taint.TimeAdded != nil
			}
			switch own := ptr.Deref(device.Attributes["pfName"].StringValue, "") == port; {
			case !own && sick:
				return fmt.Errorf("VF %s of another port has the taints %v", device.Name, device.Taints)
			case !own:
				others++
			case sick == offered:
				return fmt.Errorf("VF %s has the taints %v", device.Name, device.Taints)
			default:
				ofPort++
			}
		}
		want := vfsPerNode / 8
		if !tainting && !offered {
			want = 0
		}
		if ofPort != want || others != vfsPerNode-vfsPerNode/8 {
			return fmt.Errorf("%d VFs of port %s and %d others are published", ofPort, port, others)
		}
		return nil
	})
}

// wantHealth waits until the pod's status says so of its VF.
func (s *space) wantHealth(pod string, want corev1.ResourceHealthStatus, text string) {
	s.t.Helper()
	eventually(s.t, "told of the health", func() error {
		got, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, container := range got.Status.ContainerStatuses {
			for _, status := range container.AllocatedResourcesStatus {
				for _, resource := range status.Resources {
					if resource.Health == want && strings.Contains(ptr.Deref(resource.Message, ""), text) {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("no container of pod %s has a VF that is %s %s: %+v", pod, want, text, got.Status.ContainerStatuses)
	})
}
