package noclaims

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	gpusPerNode, vfsPerNode = 8, 64
	gpuResource, vfResource = "nvidia.com/gpu", "nvidia.com/vf"
	release                 = harness.Namespace
	chart                   = "deployments/helm/eks-hybrid-dra"
)

// values have the device plugin API serve everything.
const values = `
image: {repository: localhost/eks-hybrid-dra, tag: dev}
simulate: dgx-h200
driver: {enableSRIOV: true}
nodeConfig:
  devicePlugin:
    kinds: [gpu, vf]
    vfResources:
    - name: ` + vfResource + "\n"

func TestAClusterWithoutClaims(t *testing.T) {
	if _, err := cluster.Client.Discovery().ServerResourcesForGroupVersion("resource.k8s.io/v1"); !apierrors.IsNotFound(err) {
		t.Fatalf("this cluster has claims (%v): E2E_KUBERNETES_VERSION must be before 1.34", err)
	}
	s := newSite(t)
	s.install()
	s.awaitAllocatable(gpuResource, gpusPerNode)
	s.awaitAllocatable(vfResource, vfsPerNode)
	s.wantTold()

	s.must(cluster.Apply(s.ctx, s.namespace, "examples/device-plugin-gpu.yaml"))
	s.must(cluster.Apply(s.ctx, s.namespace, "examples/device-plugin-vf.yaml"))
	s.await("device-plugin-gpu", harness.Succeeded())
	if gpus := harness.GPUs(s.kubectl("logs", "-n", s.namespace, "device-plugin-gpu")); len(gpus) != 1 {
		t.Errorf("the pod of the guide saw the GPUs %v, want one", gpus)
	}
	s.await("device-plugin-vf", harness.Succeeded())
	if log := s.kubectl("logs", "-n", s.namespace, "device-plugin-vf"); !strings.Contains(log, "PCIDEVICE_NVIDIA_COM_VF=0000:") {
		t.Errorf("the pod with a VF was not told which: %q", log)
	}

	var pods []*corev1.Pod
	var used []string
	for n := range gpusPerNode {
		name := fmt.Sprint("user-", n)
		s.run(name, gpuResource, 1)
		pods = append(pods, s.await(name, harness.Running()))
		used = append(used, s.gpus(name)...)
	}
	s.run("ninth", gpuResource, 1)
	s.await("ninth", harness.Unschedulable())
	if slices.Sort(used); len(slices.Compact(used)) != gpusPerNode {
		t.Errorf("8 pods see the GPUs %v, want all that the machine has", used)
	}

	s.must(cluster.Restart(s.patient(), harness.Kubelet))
	s.awaitAllocatable(gpuResource, gpusPerNode)
	s.killPlugin()
	s.kubectl("rollout", "restart", "-n", harness.Namespace, "daemonset/"+harness.Plugin)
	s.must(cluster.WaitDriver(s.patient()))
	s.awaitAllocatable(gpuResource, gpusPerNode)
	for _, pod := range pods {
		if now := s.await(pod.Name, harness.Running()); harness.ContainerID(now, "work") != harness.ContainerID(pod, "work") {
			t.Errorf("the container of pod %s was restarted", pod.Name)
		}
	}
	freed := s.gpus("user-3")
	s.kubectl("delete", "pod", "-n", s.namespace, "user-3")
	s.await("ninth", harness.Running())
	if got := s.gpus("ninth"); !slices.Equal(got, freed) {
		t.Errorf("the ninth pod has GPU %v, want the one that is free by now, %v", got, freed)
	}
	s.remove()
}

// install installs the chart, and returns when the plugin is ready.
func (s *site) install() {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "values.yaml")
	s.must(os.WriteFile(file, []byte(values), 0o600))
	args := []string{"install", release, chart, "--namespace", harness.Namespace, "--create-namespace", "--wait", "--timeout", patience.String(), "--values", file}
	out, err := s.helm(append(args, "--set", "nodeConfig.devicePlugin.kinds={gpu}")...)
	if err == nil || !strings.Contains(out, "does not serve resource.k8s.io/v1") {
		s.t.Fatalf("VFs that nobody can serve are not refused: %v\n%s", err, out)
	}
	_, err = s.helm(args...)
	s.must(err)
	s.must(cluster.WaitDriver(s.patient()))
}

// wantTold fails the test unless the plugin has said once that there are no claims.
func (s *site) wantTold() {
	s.t.Helper()
	pod, err := cluster.PluginPod(s.patient())
	s.must(err)
	log, err := cluster.Logs(s.ctx, pod.Namespace, pod.Name, harness.PluginContainer)
	s.must(err)
	if n := strings.Count(log, "claims cannot be used here"); n != 1 {
		s.t.Errorf("the plugin says %d times that there are no claims, want once:\n%s", n, log)
	}
	if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts != 0 {
		s.t.Errorf("the plugin was started again %d times", restarts)
	}
}

// killPlugin kills the plugin's container, and returns when another one runs.
func (s *site) killPlugin() {
	s.t.Helper()
	killed, err := cluster.RunningContainers(s.ctx, harness.Namespace, "", harness.PluginContainer)
	s.must(err)
	for _, id := range killed {
		s.must(cluster.KillContainer(s.ctx, id))
	}
	s.until("running again", func() error {
		ids, err := cluster.RunningContainers(s.ctx, harness.Namespace, "", harness.PluginContainer)
		if err == nil && !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(killed, id) }) {
			err = errors.New("the plugin does not run")
		}
		return err
	})
}

// remove uninstalls the driver, which is refused while pods have its devices.
func (s *site) remove() {
	s.t.Helper()
	uninstall := []string{"uninstall", release, "--namespace", harness.Namespace, "--timeout", patience.String()}
	if out, err := s.helm(uninstall...); err == nil || !strings.Contains(out, "in use by 8 claims or pods") {
		s.t.Fatalf("an uninstall while pods have GPUs is not refused: %v\n%s", err, out)
	}
	s.kubectl("delete", "pods", "-n", s.namespace, "--all")
	_, err := s.helm(uninstall...)
	s.must(err)
	left, err := cluster.OnNode(s.ctx, "sh", "-c", "ls -d /var/lib/kubelet/plugins/"+harness.DriverName+" /var/run/cdi/*eks-hybrid-dra* /var/lib/kubelet/device-plugins/eks-hybrid-dra-* 2>/dev/null || true")
	s.must(err)
	if left != "" {
		s.t.Errorf("left on the node:\n%s", left)
	}
}
