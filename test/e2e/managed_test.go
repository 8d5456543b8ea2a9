package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// managedLabel is the label of a node whose pairs the controller gives away.
	managedLabel = "e2e-allocator"
	// settling is long enough to be seen by whoever looks.
	settling = "5s"
)

// kubeScheduler is who gives devices that nothing is said of.
const kubeScheduler = "kube-scheduler"

func TestManagedDevicesAreGivenByTheControllerAloneAndHandedOverInPeace(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	allocation := s.claim("user").Status.Allocation

	s.stopController()
	s.labelNode("controller")
	s.configure(fmt.Sprintf("managed: {kinds: [gpu-vf], nodeSelector: {%s: controller}, settle: %s}", managedLabel, settling))
	all := map[string]int{"gpu": gpusPerNode, "gpu-vf": gpusPerNode, "vf": gpusPerNode}
	s.waitAllocator(v1alpha1.ManagedSettling, all)
	// While the devices settle, and afterwards, kube-scheduler gives them to
	// nobody; the controller does not run in this test.
	claims := map[string]resourceapi.ResourceClaimSpec{
		"gpu": gpus(1), "pair": pairs(1), "all-vfs": vfs(vfsPerNode, ""),
		"managed-gpu": ofClass("managed-gpu.eks-hybrid-dra"), "managed-pair": ofClass("managed-gpu-vf.eks-hybrid-dra"), "managed-vf": ofClass("managed-vf.eks-hybrid-dra"),
	}
	for name, claim := range claims {
		s.template(name, claim)
		s.pod(name, name, "sleep", "0")
	}
	for name := range claims {
		s.wait(name, harness.Unschedulable())
	}
	s.waitAllocator(v1alpha1.ManagedByController, all)
	// Others are kube-scheduler's all the time.
	s.template("vf", vfs(1, ""))
	s.pod("vf", "vf", "sleep", "0")
	s.wait("vf", harness.Running())
	s.delete("vf")
	s.waitGone("vf")
	for name := range claims {
		s.wait(name, harness.Unschedulable())
	}
	s.wantMetric(`eks_hybrid_dra_managed_devices{allocator="controller",kind="gpu-vf"} 8`)
	if log := s.pluginLog(); strings.Count(log, "The controller also gets devices that share something") != 1 {
		t.Errorf("the log does not say once that parts of pairs are taken along:\n%s", log)
	}

	// Who has them is known after a restart, without a pause.
	history := s.watchAllocators()
	s.rollPlugin()
	if said := history(); !slices.Equal(said, []string{v1alpha1.ManagedByController}) {
		t.Errorf("during a restart of the plugin the pairs were said to be given by %v", said)
	}
	wantSameContainers(t, before, s.wait("user", harness.Running()))

	// The label alone hands them back, while the plugin runs.
	history = s.watchAllocators()
	s.labelNode("kube-scheduler")
	s.waitAllocator(kubeScheduler, nil)
	if said := history(); !slices.Equal(said, []string{v1alpha1.ManagedByController, v1alpha1.ManagedSettling, kubeScheduler}) {
		t.Errorf("on the way back the pairs were said to be given by %v", said)
	}
	s.wait("gpu", harness.Running())
	s.wait("pair", harness.Running())
	for _, name := range []string{"managed-gpu", "managed-pair", "managed-vf"} {
		s.wait(name, harness.Unschedulable())
	}
	s.wantMetric(`eks_hybrid_dra_handovers_total{allocator="scheduler",kind="gpu-vf"} 8`)

	wantSameContainers(t, before, s.wait("user", harness.Running()))
	if diff := cmp.Diff(allocation, s.claim("user").Status.Allocation); diff != "" {
		t.Errorf("allocation of a pod that runs (-before +after):\n%s", diff)
	}
	s.gpus("user", "show", 1)
	s.delete("user")
	s.waitGone("user")
}

// stopController takes the controller away until the test ends.
func (s *space) stopController() {
	s.t.Helper()
	scale := func(ctx context.Context, replicas string) {
		s.t.Helper()
		if _, err := cluster.Kubectl(ctx, "scale", "-n", harness.Namespace, "deployment/eks-hybrid-dra-controller", "--replicas="+replicas); err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(func() { scale(context.WithoutCancel(s.ctx), "2") })
	scale(s.ctx, "0")
	s.eventually("the controller has ended", func(ctx context.Context) (bool, error) {
		pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controller"})
		return err == nil && len(pods.Items) == 0, err
	})
}

// ofClass asks for one device of a class.
func ofClass(class string) resourceapi.ResourceClaimSpec {
	return claimOf(resourceapi.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1})
}

// labelNode gives the node the label, until the test ends.
func (s *space) labelNode(value string) {
	s.t.Helper()
	node := s.nodeOfSlices()
	patch := func(ctx context.Context, value any) {
		s.t.Helper()
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{managedLabel: value}}})
		if err == nil {
			_, err = cluster.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, body, metav1.PatchOptions{})
		}
		if err != nil {
			s.t.Errorf("labelling node %s: %v", node, err)
		}
	}
	s.t.Cleanup(func() { patch(context.WithoutCancel(s.ctx), nil) })
	patch(s.ctx, value)
}

func (s *space) nodeOfSlices() string {
	s.t.Helper()
	all, err := cluster.Slices(s.ctx)
	if err != nil || len(all) == 0 || all[0].Spec.NodeName == nil {
		s.t.Fatalf("%d slices, %v", len(all), err)
	}
	return *all[0].Spec.NodeName
}

// configure gives the plugin a section more in its configuration, until the test
// ends. It returns when a plugin runs that has it.
func (s *space) configure(section string) {
	s.t.Helper()
	s.configurable()(section)
}

// configurable returns a function that has the plugin run with a section more in
// its configuration than it has now, in place of the one of the call before. What
// there is now comes back when the test ends.
func (s *space) configurable() (configure func(section string)) {
	s.t.Helper()
	maps := cluster.Client.CoreV1().ConfigMaps(harness.Namespace)
	current, err := maps.Get(s.ctx, harness.DriverName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	const file = "config.yaml"
	set := func(ctx context.Context, content string) {
		s.t.Helper()
		body, err := json.Marshal(map[string]any{"data": map[string]string{file: content}})
		if err == nil {
			_, err = maps.Patch(ctx, current.Name, types.MergePatchType, body, metav1.PatchOptions{})
		}
		if err != nil {
			s.t.Errorf("configuring the plugin: %v", err)
			return
		}
		s.until("the plugin runs as configured", func() error {
			s.rollPlugin()
			return s.wantMounted(ctx, file, content)
		})
	}
	s.t.Cleanup(func() {
		set(context.WithoutCancel(s.ctx), current.Data[file])
		s.waitAllocator(kubeScheduler, nil)
	})
	return func(section string) {
		s.t.Helper()
		set(s.ctx, current.Data[file]+"\n"+section+"\n")
	}
}

// wantMounted fails if the plugin has another configuration than it was given: a
// kubelet that has just been cut off mounts what it knows of a ConfigMap.
func (s *space) wantMounted(ctx context.Context, file, content string) error {
	pod, err := cluster.PluginPod(ctx)
	if err != nil {
		return err
	}
	mounted, err := cluster.OnNode(ctx, "cat", "/var/lib/kubelet/pods/"+string(pod.UID)+"/volumes/kubernetes.io~configmap/config/"+file)
	if errors.Is(err, harness.ErrNoNode) {
		return nil
	}
	if err == nil && strings.TrimSpace(mounted) != strings.TrimSpace(content) {
		err = fmt.Errorf("pod %s has the configuration\n%s", pod.Name, mounted)
	}
	return err
}

// given returns, of the devices that are published, how many of each kind
// somebody gives. It fails if the taint and the attribute do not agree.
func given(all []resourceapi.ResourceSlice) (map[string]map[string]int, error) {
	counts := map[string]map[string]int{}
	for _, slice := range all {
		for _, d := range slice.Spec.Devices {
			giver := kubeScheduler
			for _, taint := range d.Taints {
				if taint.Key == v1alpha1.TaintManaged && taint.Effect == resourceapi.DeviceTaintEffectNoSchedule {
					giver = taint.Value
				}
			}
			if has := value(d.Attributes["allocator"]) == "controller"; has != (giver == v1alpha1.ManagedByController) {
				return nil, fmt.Errorf("device %s is given by %s and has allocator %q", d.Name, giver, value(d.Attributes["allocator"]))
			}
			if counts[giver] == nil {
				counts[giver] = map[string]int{}
			}
			counts[giver][value(d.Attributes["type"])]++
		}
	}
	return counts, nil
}

// waitAllocator waits until somebody gives as many devices of each kind; all
// other devices are kube-scheduler's.
func (s *space) waitAllocator(who string, want map[string]int) {
	s.t.Helper()
	s.until("given by "+who, func() error {
		all, err := cluster.Slices(s.ctx)
		if err != nil {
			return err
		}
		counts, err := given(all)
		if err != nil {
			return err
		}
		others := maps.Clone(counts)
		delete(others, kubeScheduler)
		if who == kubeScheduler && len(others) == 0 && len(all) > 0 {
			return nil
		}
		if who == kubeScheduler || len(others) != 1 || !cmp.Equal(counts[who], want) {
			return fmt.Errorf("given: %v", counts)
		}
		return nil
	})
}

// watchAllocators begins to note who is said to give pairs. The function that it
// returns tells in which order they were seen first.
func (s *space) watchAllocators() (stop func() []string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	seen, done := []string{}, make(chan error, 1)
	watcher, err := cluster.Client.ResourceV1().ResourceSlices().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	go func() {
		defer watcher.Stop()
		for event := range watcher.ResultChan() {
			slice, ok := event.Object.(*resourceapi.ResourceSlice)
			if !ok || slice.Spec.Driver != harness.DriverName {
				continue
			}
			counts, err := given([]resourceapi.ResourceSlice{*slice})
			if err != nil {
				done <- err
				return
			}
			for _, who := range []string{v1alpha1.ManagedByController, v1alpha1.ManagedSettling, kubeScheduler} {
				if counts[who]["gpu-vf"] > 0 && !slices.Contains(seen, who) {
					seen = append(seen, who)
				}
			}
		}
		done <- nil
	}()
	return func() []string {
		s.t.Helper()
		cancel()
		watcher.Stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.t.Error(err)
		}
		return seen
	}
}

func (s *space) wantMetric(line string) {
	s.t.Helper()
	s.until("told by the metrics", func() error {
		if metrics := pluginSays(s.t, "/metrics"); !strings.Contains(metrics, line+"\n") {
			return fmt.Errorf("no %s in\n%s", line, ours(metrics))
		}
		return nil
	})
}

func (s *space) pluginLog() string {
	s.t.Helper()
	pod, err := cluster.PluginPod(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := cluster.Logs(s.ctx, pod.Namespace, pod.Name, harness.PluginContainer)
	if err != nil {
		s.t.Fatal(err)
	}
	return log
}
