package chart

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
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	vfsPerNode              = 64
	gpuResource, vfResource = "nvidia.com/gpu", "nvidia.com/vf"
)

// servesAll has the device plugin API serve everything.
const servesAll = `
image: {repository: ` + image + `, tag: ` + tag + `}
simulate: dgx-h200
driver: {enableSRIOV: true}
nodeConfig:
  devicePlugin:
    kinds: [gpu, vf]
    settle: 1s
    vfResources:
    - name: ` + vfResource + "\n"

// The chart from install to uninstall where pods have no claims but extended
// resources. It is so on every cluster; on one before Kubernetes 1.34, where "make
// test-versions" runs this, there are no claims at all.
func TestExtendedResources(t *testing.T) {
	s := newSite(t)
	_, err := cluster.Client.Discovery().ServerResourcesForGroupVersion("resource.k8s.io/v1")
	noClaims := apierrors.IsNotFound(err)
	if !noClaims {
		s.must(err)
	}
	before := s.before(harness.Namespace)
	s.installExtended(noClaims)
	s.kubectl("create", "namespace", users)
	t.Cleanup(func() { s.kubectl("delete", "namespace", users, "--ignore-not-found", "--wait=false") })
	s.must(cluster.WaitNamespace(s.patient(), users))
	s.runExtendedExamples()

	var pods []*corev1.Pod
	var used []string
	for n := range gpusPerNode {
		name := fmt.Sprint("user-", n)
		pods = append(pods, s.runExtended(name, gpuResource, harness.Running()))
		used = append(used, s.gpusOf(name)...)
	}
	pods = append(pods, s.runExtended("vf-user", vfResource, harness.Running()))
	s.runExtended("ninth", gpuResource, harness.Unschedulable())
	if slices.Sort(used); len(slices.Compact(used)) != gpusPerNode {
		t.Errorf("8 pods see the GPUs %v, want all that the machine has", used)
	}
	s.outlive(pods)
	freed := s.gpusOf("user-3")
	s.kubectl("delete", "pod", "-n", users, "user-3")
	s.await("ninth", harness.Running())
	if got := s.gpusOf("ninth"); !slices.Equal(got, freed) {
		t.Errorf("the ninth pod has GPU %v, want the one that is free by now, %v", got, freed)
	}
	s.uninstallExtended()
	s.wantNothingLeft(before)
}

// installExtended installs the chart, and returns when kubelet has all devices.
func (s *site) installExtended(noClaims bool) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "values.yaml")
	s.must(os.WriteFile(file, []byte(servesAll), 0o600))
	args := []string{"install", release, source, "--namespace", harness.Namespace, "--create-namespace", "--wait", "--timeout", patience.String(), "--values", file}
	if noClaims {
		out, err := s.helm(append(args, "--set", "nodeConfig.devicePlugin.kinds={gpu}")...)
		if err == nil || !strings.Contains(out, "does not serve resource.k8s.io/v1") {
			s.t.Fatalf("VFs that nobody can serve are not refused: %v\n%s", err, out)
		}
	}
	s.mustHelm(args...)
	s.must(cluster.WaitDriver(s.patient()))
	s.awaitAllocatable()

	pod, err := cluster.PluginPod(s.patient())
	s.must(err)
	log, err := cluster.Logs(s.ctx, pod.Namespace, pod.Name, harness.PluginContainer)
	s.must(err)
	if n, want := strings.Count(log, "claims cannot be used here"), map[bool]int{true: 1}[noClaims]; n != want {
		s.t.Errorf("the plugin says %d times that there are no claims, want %d:\n%s", n, want, log)
	}
	if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts != 0 {
		s.t.Errorf("the plugin was started again %d times", restarts)
	}
}

// awaitAllocatable waits until the node has all its devices to give.
func (s *site) awaitAllocatable() {
	s.t.Helper()
	s.until("allocatable", func() error {
		nodes, err := cluster.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		left := nodes.Items[0].Status.Allocatable
		gpus, vfs := left[gpuResource], left[vfResource]
		if gpus.Value() != gpusPerNode || vfs.Value() != vfsPerNode {
			return fmt.Errorf("the node has %s GPUs and %s VFs", gpus.String(), vfs.String())
		}
		return nil
	})
}

// runExtendedExamples runs the pods of the guide.
func (s *site) runExtendedExamples() {
	s.t.Helper()
	const gpu, vf = "device-plugin-gpu", "device-plugin-vf"
	for _, example := range []string{gpu, vf} {
		s.must(cluster.Apply(s.ctx, users, "examples/"+example+".yaml"))
		s.await(example, harness.Succeeded())
	}
	if gpus := harness.GPUs(s.kubectl("logs", "-n", users, gpu)); len(gpus) != 1 {
		s.t.Errorf("the pod of the guide saw the GPUs %v, want one", gpus)
	}
	if log := s.kubectl("logs", "-n", users, vf); !strings.Contains(log, "PCIDEVICE_NVIDIA_COM_VF=0000:") {
		s.t.Errorf("the pod with a VF was not told which: %q", log)
	}
}

// runExtended makes a pod that has one of a resource and lives on, and returns it
// once the condition is met.
func (s *site) runExtended(name, resourceName string, want harness.PodCondition) *corev1.Pod {
	s.t.Helper()
	_, err := cluster.Client.CoreV1().Pods(users).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "work", Image: "nvidia/cuda:12.3.0-base-ubuntu22.04", Command: []string{"sleep", "infinity"},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceName(resourceName): resource.MustParse("1")}},
			}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	return s.await(name, want)
}

func (s *site) await(name string, want harness.PodCondition) *corev1.Pod {
	s.t.Helper()
	pod, err := cluster.WaitPod(s.patient(), users, name, want)
	s.must(err)
	return pod
}

// gpusOf returns the UUIDs of the GPUs that a running pod sees.
func (s *site) gpusOf(pod string) []string {
	s.t.Helper()
	return harness.GPUs(s.kubectl("exec", "-n", users, pod, "--", "nvidia-smi", "-L"))
}

// outlive starts kubelet anew, kills the plugin and replaces it, which is nothing
// to pods that run.
func (s *site) outlive(pods []*corev1.Pod) {
	s.t.Helper()
	s.must(cluster.Restart(s.patient(), harness.Kubelet))
	s.awaitAllocatable()
	s.killPlugin()
	s.kubectl("rollout", "restart", "-n", harness.Namespace, "daemonset/"+harness.Plugin)
	s.must(cluster.WaitDriver(s.patient()))
	s.awaitAllocatable()
	for _, pod := range pods {
		if now := s.await(pod.Name, harness.Running()); harness.ContainerID(now, "work") != harness.ContainerID(pod, "work") {
			s.t.Errorf("the container of pod %s was restarted", pod.Name)
		}
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

// uninstallExtended uninstalls the driver, which is refused while pods have its
// devices, and says which.
func (s *site) uninstallExtended() {
	s.t.Helper()
	uninstall := []string{"uninstall", release, "--namespace", harness.Namespace, "--timeout", patience.String()}
	out, err := s.helm(uninstall...)
	if err == nil {
		s.t.Fatal("uninstalled while pods have devices")
	}
	for _, want := range []string{"in use by 9 claims or pods", users + "/user-0", users + "/ninth", users + "/vf-user"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("helm does not print %q:\n%s", want, out)
		}
	}
	s.kubectl("delete", "namespace", users, "--wait")
	s.mustHelm(uninstall...)
}
