package privileges

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	unprivileged = "unprivileged.yaml"
	claimsFolder = "/var/lib/kubelet/plugins/" + harness.DriverName + "/claims"
)

// useUnprivileged installs the plugin without privileges in place of what is
// there, unless it is there.
func useUnprivileged(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := errors.Join(world.clear(ctx), world.applyOwn(ctx, "runtimeclass.yaml"))
	if err == nil && world.installed != unprivileged {
		err = world.reset(ctx, unprivileged)
	}
	if err == nil {
		_, err = world.WaitDevices(ctx, gpusPerNode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A pod gets its GPU from a plugin without privileges, keeps it while the plugin
// is replaced, and gives it back.
func TestThePluginWithoutPrivilegesServesGPUs(t *testing.T) {
	useUnprivileged(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pods, err := world.pods(ctx, plugin().name)
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods of the plugin, %v", len(pods), err)
	}
	if c := pods[0].Spec.Containers[0]; ptr.Deref(pods[0].Spec.RuntimeClassName, "") != "nvidia" || ptr.Deref(c.SecurityContext.Privileged, false) {
		t.Errorf("the plugin runs with RuntimeClass %v and %+v", pods[0].Spec.RuntimeClassName, c.SecurityContext)
	}
	show := func() string {
		t.Helper()
		text, err := world.Kubectl(ctx, "exec", "-n", users, "kept", "--", "nvidia-smi", "-L")
		if err != nil || len(harness.GPUs(text)) != 1 {
			t.Fatalf("the pod sees %q, %v; want one GPU", text, err)
		}
		return harness.GPUs(text)[0]
	}
	run := func() {
		t.Helper()
		if err := world.applyOwn(ctx, "kept.yaml"); err != nil {
			t.Fatal(err)
		}
		if _, err := world.WaitPod(ctx, users, "kept", harness.Running()); err != nil {
			t.Fatal(err)
		}
	}
	run()
	had := show()
	if err := world.renew(ctx, plugin()); err != nil {
		t.Fatal(err)
	}
	if has := show(); has != had {
		t.Errorf("after the plugin was replaced the pod has GPU %s, it had %s", has, had)
	}
	if _, err := world.Kubectl(ctx, "delete", "pod", "-n", users, "kept", "--wait"); err != nil {
		t.Fatal(err)
	}
	err = eventually(ctx, "the node keeps nothing of the claim", func(ctx context.Context) error {
		left, err := world.FilesOnNode(ctx, claimsFolder)
		if len(left) > 0 {
			err = fmt.Errorf("there are %q", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	run()
	show()
	if err := world.clear(ctx); err != nil {
		t.Error(err)
	}
}

// Each thing that the plugin's container without privileges has is needed: the
// plugin says what it lacks without it, and ends.
func TestThePluginWithoutPrivilegesNeedsAllItHas(t *testing.T) {
	useUnprivileged(t)
	tests := map[string]struct {
		without func(spec *corev1.PodSpec)
		says    string
	}{
		"capability MKNOD, which only the simulated machine has": {func(spec *corev1.PodSpec) {
			spec.Containers[0].SecurityContext.Capabilities.Add = nil
			// Another driver, which has made none of its device nodes yet.
			args := spec.Containers[0].Args
			args[slices.Index(args, "--driver-name="+harness.DriverName)] = fmt.Sprintf("--driver-name=new-%d.example.com", time.Now().UnixNano())
		}, "operation not permitted"},
		"root": {func(spec *corev1.PodSpec) {
			spec.Containers[0].SecurityContext.RunAsUser = ptr.To[int64](65532)
		}, "permission denied"},
		"what SR-IOV takes": {func(spec *corev1.PodSpec) {
			args := spec.Containers[0].Args
			args[slices.Index(args, "--enable-sriov=false")] = "--enable-sriov=true"
		}, ""},
	}
	for _, mount := range []string{"plugins", "plugins-registry", "host", "config"} {
		test := tests["mount "+mount]
		test.without = func(spec *corev1.PodSpec) {
			c := &spec.Containers[0]
			c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == mount })
		}
		tests["mount "+mount] = test
	}
	set, err := world.Client.AppsV1().DaemonSets(harness.Namespace).Get(t.Context(), harness.Plugin, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range set.Spec.Template.Spec.Containers[0].VolumeMounts {
		if _, ok := tests["mount "+m.Name]; !ok && m.Name != "cdi" { // see the next test
			t.Errorf("nothing tries the plugin without the mount %s", m.Name)
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := set.Spec.Template.Spec.DeepCopy()
			test.without(spec)
			spec.RestartPolicy = corev1.RestartPolicyNever
			spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			said := world.ends(t, spec)
			if !strings.Contains(said, test.says) {
				t.Errorf("it says %q, want %q", said, test.says)
			}
			t.Log(said)
		})
	}
}

// Without the folder of CDI specs the plugin runs, and pods say what it lacks.
func TestThePluginWithoutPrivilegesNeedsTheFolderOfCDISpecs(t *testing.T) {
	useUnprivileged(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sets := world.Client.AppsV1().DaemonSets(harness.Namespace)
	set, err := sets.Get(ctx, harness.Plugin, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	world.installed = "" // not as it was installed
	c := &set.Spec.Template.Spec.Containers[0]
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "cdi" })
	if _, err := sets.Update(ctx, set, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := world.renew(ctx, plugin()); err != nil {
		t.Fatal(err)
	}
	if err := world.applyOwn(ctx, "kept.yaml"); err != nil {
		t.Fatal(err)
	}
	event, err := world.WaitEvent(ctx, users, "kept", "/var/run/cdi")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(event.Message)
	if err := world.clear(ctx); err != nil {
		t.Error(err)
	}
}

// ends runs a pod that is to fail, and returns the last that it says.
func (s *scene) ends(t *testing.T, spec *corev1.PodSpec) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pods := s.Client.CoreV1().Pods(harness.Namespace)
	pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "lacks-"}, Spec: *spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pods.Delete(context.WithoutCancel(ctx), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Error(err)
		}
	})
	said := ""
	err = eventually(ctx, "the plugin ends", func(ctx context.Context) error {
		now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, status := range now.Status.ContainerStatuses {
			if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
				lines := strings.Split(strings.TrimSpace(ended.Message), "\n")
				said = lines[len(lines)-1]
				return nil
			}
		}
		return fmt.Errorf("pod %s is %s", now.Name, now.Status.Phase)
	})
	if err != nil {
		t.Fatal(err)
	}
	return said
}
