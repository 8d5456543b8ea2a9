package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// patience is how long a test waits for one thing: an emulated guest on a
	// busy machine is slow.
	patience = 4 * time.Minute
	busybox  = "busybox:1.36"
)

// space is a test's own namespace.
type space struct {
	t    *testing.T
	ctx  context.Context
	name string
}

// newSpace makes a namespace. When the test ends, its pods are gone before the
// next one starts.
func newSpace(t *testing.T) *space {
	t.Helper()
	namespace, err := world.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "guest-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a namespace: %v", err)
	}
	// Cleaning up comes after the end of the test's own context.
	s := &space{t: t, ctx: context.WithoutCancel(t.Context()), name: namespace.Name}
	t.Cleanup(func() {
		if t.Failed() {
			var report bytes.Buffer
			world.Report(s.ctx, &report)
			t.Log(report.String())
		}
		s.clear()
	})
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := world.WaitNamespace(ctx, s.name); err != nil {
		t.Fatal(err)
	}
	return s
}

// clear deletes the namespace and waits for its pods to go.
func (s *space) clear() {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := world.Client.CoreV1().Pods(s.name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		s.t.Errorf("deleting the pods of namespace %s: %v", s.name, err)
	}
	if err := world.Client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}); err != nil {
		s.t.Errorf("deleting namespace %s: %v", s.name, err)
	}
	if err := world.WaitPodsGone(ctx, s.name); err != nil {
		s.t.Error(err)
	}
}

// vfs asks for VFs that all expressions accept, each with the given fields of a
// VfConfig, as JSON without the braces around.
func vfs(count int64, fields string, expressions ...string) resourceapi.ResourceClaimSpec {
	return claimOf("vf.eks-hybrid-dra", count, fields, expressions...)
}

// pairs asks for GPUs, each with the VF beside it.
func pairs(count int64, fields string) resourceapi.ResourceClaimSpec {
	return claimOf("gpu-vf.eks-hybrid-dra", count, fields)
}

func claimOf(class string, count int64, fields string, expressions ...string) resourceapi.ResourceClaimSpec {
	request := resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count,
	}
	for _, expression := range expressions {
		request.Selectors = append(request.Selectors, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: expression}})
	}
	claim := resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "vf", Exactly: &request}},
	}}
	if fields != "" {
		claim.Devices.Config = []resourceapi.DeviceClaimConfiguration{{
			DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
				Driver: harness.DriverName,
				Parameters: runtime.RawExtension{Raw: fmt.Appendf(nil,
					`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig",%s}`, fields)},
			}},
		}}
	}
	return claim
}

// byAddress accepts the VF with this PCI address alone.
func byAddress(address string) string {
	return fmt.Sprintf("device.attributes['resource.kubernetes.io'].pciBusID == '%s'", address)
}

// ofNUMANode accepts the VFs of one half of the machine.
func ofNUMANode(number int) string {
	return fmt.Sprintf("device.attributes['resource.kubernetes.io'].numaNode == %d", number)
}

// template makes a claim template.
func (s *space) template(name string, claim resourceapi.ResourceClaimSpec) {
	s.t.Helper()
	_, err := world.Client.ResourceV1().ResourceClaimTemplates(s.name).Create(s.ctx, &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourceapi.ResourceClaimTemplateSpec{Spec: claim},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatalf("creating claim template %s: %v", name, err)
	}
}

// vfPod returns a pod with a claim from the template, which lives on in its
// container "work".
func vfPod(name, template string, command ...string) *corev1.Pod {
	if len(command) == 0 {
		command = []string{"sleep", "infinity"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "work", Image: busybox, Command: command,
				Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "vf"}}},
			}},
			ResourceClaims: []corev1.PodResourceClaim{{Name: "vf", ResourceClaimTemplateName: &template}},
		},
	}
}

func (s *space) create(pod *corev1.Pod) {
	s.t.Helper()
	if _, err := world.Client.CoreV1().Pods(s.name).Create(s.ctx, pod, metav1.CreateOptions{}); err != nil {
		s.t.Fatalf("creating pod %s: %v", pod.Name, err)
	}
}

// wait returns the pod once the condition is met.
func (s *space) wait(pod string, want harness.PodCondition) *corev1.Pod {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	got, err := world.WaitPod(ctx, s.name, pod, want)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// delete starts the end of a pod.
func (s *space) delete(pod string) {
	s.t.Helper()
	if err := world.Client.CoreV1().Pods(s.name).Delete(s.ctx, pod, metav1.DeleteOptions{}); err != nil {
		s.t.Fatalf("deleting pod %s: %v", pod, err)
	}
}

// waitGone returns when the pod is no more.
func (s *space) waitGone(pod string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := world.WaitPodGone(ctx, s.name, pod); err != nil {
		s.t.Fatal(err)
	}
}

// until waits until check returns nil.
func (s *space) until(what string, check func() error) {
	s.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(s.ctx, 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		s.t.Fatalf("never %s: %v", what, last)
	}
}

// exec runs a program in the pod's container "work".
func (s *space) exec(pod string, program ...string) string {
	s.t.Helper()
	out, err := world.Kubectl(s.ctx, append([]string{"exec", "-n", s.name, pod, "-c", "work", "--"}, program...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// guest runs a program on the node.
func (s *space) guest(args ...string) string {
	s.t.Helper()
	out, err := onNode(s.ctx, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// pings returns nil if an address answers one of several requests from a pod.
func (s *space) pings(pod, address string) error {
	_, err := world.Kubectl(s.ctx, "exec", "-n", s.name, pod, "-c", "work", "--", "ping", "-c", "5", address)
	return err
}

// wantPrinted fails the test unless the container printed all of the texts.
func (s *space) wantPrinted(pod, container string, texts ...string) {
	s.t.Helper()
	printed, err := world.Logs(s.ctx, s.name, pod, container)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range texts {
		if !strings.Contains(printed, text) {
			s.t.Errorf("container %s of pod %s did not print %q; it printed:\n%s", container, pod, text, printed)
		}
	}
}

// wantInterface fails the test unless the pod's interface shows all of the
// texts.
func (s *space) wantInterface(pod, name string, texts ...string) {
	s.t.Helper()
	shown := s.exec(pod, "ip", "address", "show", name)
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			s.t.Errorf("interface %s of pod %s does not show %q:\n%s", name, pod, text, shown)
		}
	}
}

// wantRefused fails the test unless an event of the pod says all of the texts,
// and its container "work" does not run.
func (s *space) wantRefused(pod string, says ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	event, err := world.WaitEvent(ctx, s.name, pod, says[0])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range says {
		if !strings.Contains(event.Message, text) {
			s.t.Errorf("the event does not say %q: %s", text, event.Message)
		}
	}
	s.wait(pod, harness.PodCondition{Name: "have been refused", Met: func(pod *corev1.Pod) (bool, error) {
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Running != nil || pod.Status.Phase == corev1.PodSucceeded {
				return false, errors.New("its container ran")
			}
			if status.State.Waiting != nil || status.State.Terminated != nil {
				return true, nil
			}
		}
		return false, nil
	}})
}
