package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// vfsPerNode is how many VFs the simulated machine has.
	vfsPerNode = 64
	vfClass    = "vf.eks-hybrid-dra"
	busybox    = "busybox:1.36"
)

// vfs asks for VFs that all expressions accept, each with the given fields of a
// VfConfig, as JSON without the braces around.
func vfs(count int64, fields string, expressions ...string) resourceapi.ResourceClaimSpec {
	claim := claimOf(resourceapi.ExactDeviceRequest{
		DeviceClassName: vfClass,
		AllocationMode:  resourceapi.DeviceAllocationModeExactCount,
		Count:           count,
		Selectors:       selectors(expressions),
	})
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

// vfPod returns a pod with a claim from the template, which lives on in its
// container "work".
func vfPod(name, template string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers:                    []corev1.Container{vfContainer("work", "sleep", "infinity")},
			ResourceClaims:                []corev1.PodResourceClaim{{Name: "vf", ResourceClaimTemplateName: &template}},
		},
	}
}

// vfContainer returns a container that uses the claim of [vfPod].
func vfContainer(name string, command ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: busybox, Command: command,
		Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "vf"}}},
	}
}

// vfDevices returns the VFs that are published, also while a test cleans up.
func vfDevices(t *testing.T) []resourceapi.Device {
	t.Helper()
	published, err := cluster.Slices(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var devices []resourceapi.Device
	for _, slice := range published {
		for _, device := range slice.Spec.Devices {
			if ptr.Deref(device.Attributes["type"].StringValue, "") == "vf" {
				devices = append(devices, device)
			}
		}
	}
	return devices
}

// allocatedVF returns the PCI address of the VF that the pod has.
func (s *space) allocatedVF(pod string) string {
	s.t.Helper()
	name := s.claim(pod).Status.Allocation.Devices.Results[0].Device
	for _, device := range vfDevices(s.t) {
		if device.Name == name {
			return value(device.Attributes["resource.kubernetes.io/pciBusID"])
		}
	}
	s.t.Fatalf("device %s of pod %s is not published", name, pod)
	return ""
}

// pings returns nil if an address answers one of several requests from a pod.
func (s *space) pings(pod, address string) error {
	_, err := cluster.Kubectl(s.ctx, "exec", "-n", s.name, pod, "-c", "work", "--", "ping", "-c", "5", address)
	return err
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

// admin makes a pod in the host's network, in which an administrator can look
// at the host's interfaces and change them.
func (s *space) admin() {
	s.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "admin"},
		Spec: corev1.PodSpec{
			HostNetwork:                   true,
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "work", Image: busybox, Command: []string{"sleep", "infinity"},
				SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)},
			}},
		},
	}
	s.create(pod)
	s.wait("admin", harness.Running())
}

// hostVFs are the names of the VFs that are on the host, under names that VFs
// have there.
func (s *space) hostVFs() []string {
	s.t.Helper()
	var names []string
	for line := range strings.Lines(s.exec("admin", "ip", "address", "show")) {
		// 7: ibp24s0v3: <UP> mtu 1500
		columns := strings.SplitN(line, ": ", 3)
		if len(columns) == 3 && isVF(columns[1]) {
			names = append(names, columns[1])
		}
	}
	slices.Sort(names)
	return names
}

// isVF tells the names of VFs from those of their ports, and of the other ends
// of their pairs.
func isVF(name string) bool {
	port, number, found := strings.Cut(name, "s0v")
	return found && strings.HasPrefix(port, "ibp") && len(number) == 1
}

// wantAllVFsOnTheHost waits until every VF is back under its own name.
func (s *space) wantAllVFsOnTheHost() {
	s.t.Helper()
	s.until("back on the host", func() error {
		if names := s.hostVFs(); len(names) != vfsPerNode {
			return fmt.Errorf("the host has %d VFs, want %d: %s", len(names), vfsPerNode, strings.Join(names, " "))
		}
		return nil
	})
}

// until waits until check returns nil, also while the test cleans up.
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

// stopPlugin takes the driver from the node, as when its image cannot be
// pulled, and returns what brings it back.
func (s *space) stopPlugin() (start func()) {
	s.t.Helper()
	patch := func(value string) {
		s.t.Helper()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
		defer cancel()
		body := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"nodeSelector":{"e2e/nowhere":%s}}}}}`, value)
		_, err := cluster.Client.AppsV1().DaemonSets(harness.Namespace).Patch(ctx, harness.Plugin, types.StrategicMergePatchType, body, metav1.PatchOptions{})
		if err != nil {
			s.t.Error(err)
		}
	}
	started := false
	start = func() {
		s.t.Helper()
		if !started {
			started = true
			patch("null")
			s.waitDriver()
		}
	}
	s.t.Cleanup(start)
	patch(`"true"`)
	s.until("without the driver", func() error {
		pods, err := cluster.PluginPods(s.ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods of the driver are left", len(pods))
		}
		return err
	})
	return start
}

// killSandbox kills the container that holds the pod's network namespace.
func (s *space) killSandbox(pod string) {
	s.t.Helper()
	id, err := cluster.Sandbox(s.ctx, s.name, pod)
	needNode(s.t, err)
	if err := cluster.KillContainer(s.ctx, id); err != nil {
		s.t.Fatal(err)
	}
}

// killContainer kills a container of a pod and returns when another one runs in
// its place.
func (s *space) killContainer(pod, container string) *corev1.Pod {
	s.t.Helper()
	old := harness.ContainerID(s.wait(pod, harness.Running()), container)
	if err := cluster.KillContainer(s.ctx, old); err != nil {
		needNode(s.t, err)
	}
	return s.wait(pod, runsAnew(container, old))
}

// runsAnew is met when the pod runs with another container than the old one.
func runsAnew(container, old string) harness.PodCondition {
	return harness.PodCondition{Name: "run again", Met: func(pod *corev1.Pod) (bool, error) {
		again, err := harness.Running().Met(pod)
		id := harness.ContainerID(pod, container)
		return again && id != "" && id != old, err
	}}
}
