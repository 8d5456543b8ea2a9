package driver

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	dracel "k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
)

// managedGPUs gives GPUs to the controller, on nodes with a label.
func managedGPUs() v1alpha1.ManagedConfig {
	return v1alpha1.ManagedConfig{Kinds: []string{"gpu"}, NodeSelector: map[string]string{"allocator": "controller"}, Settle: "3s"}
}

// label gives the node a label, and lets the driver look at once.
func label(t *testing.T, n *node, d *Driver, value string) {
	t.Helper()
	node, err := n.client.CoreV1().Nodes().Get(t.Context(), testNode, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Labels = map[string]string{"allocator": value}
	if _, err := n.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The driver may have asked by itself.
	if _, err := d.handovers.labels.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.republish.send()
}

func TestALabelOfTheNodeHandsItsDevicesOver(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	n.managed = managedGPUs()
	serveTaints(n)
	d := startOnSockets(t, n)
	published(t, n, "gpu-0", "gpu-1")
	metrics := []string{"eks_hybrid_dra_managed_devices", "eks_hybrid_dra_handovers_total"}
	expect(t, n.registry, "", metrics...)
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))

	label(t, n, d, "controller")
	published(t, n, "gpu-0=settling", "gpu-1=settling")
	if allocators := publishedAllocators(t, n); len(allocators) > 0 {
		t.Errorf("devices that settle have an allocator: %v", allocators)
	}
	published(t, n, "gpu-0=controller", "gpu-1=controller")
	if diff := cmp.Diff([]string{"gpu-0=controller", "gpu-1=controller"}, publishedAllocators(t, n)); diff != "" {
		t.Errorf("allocators (-want +got):\n%s", diff)
	}
	n.gpus.set("gpu-1", linkDown)
	published(t, n, "gpu-0=controller", "gpu-1=controller,LinkDown")
	expect(t, n.registry, `
# HELP eks_hybrid_dra_handovers_total How often a device got another allocator, controller or scheduler.
# TYPE eks_hybrid_dra_handovers_total counter
eks_hybrid_dra_handovers_total{allocator="controller",kind="gpu"} 2
# HELP eks_hybrid_dra_managed_devices Devices that kube-scheduler does not give to claims: allocator is controller for those that the controller gives, settling for those that nobody does for the moment.
# TYPE eks_hybrid_dra_managed_devices gauge
eks_hybrid_dra_managed_devices{allocator="controller",kind="gpu"} 2
`, metrics...)

	n.gpus.set("gpu-1")
	label(t, n, d, "scheduler")
	published(t, n, "gpu-0=settling", "gpu-1=settling")
	published(t, n, "gpu-0", "gpu-1")
	mustUnprepare(t, d, newClaim("a", []string{"gpu-0"})) // whose it was all the time
}

// publishedAllocators returns who is published to give devices.
func publishedAllocators(t *testing.T, n *node) (allocators []string) {
	t.Helper()
	list, err := n.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		for _, d := range s.Spec.Devices {
			if a, ok := d.Attributes[device.AttributeAllocator]; ok {
				allocators = append(allocators, d.Name+"="+*a.StringValue)
			}
		}
	}
	return allocators
}

func TestNothingIsManagedWhereTaintsAreDropped(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	n.managed = v1alpha1.ManagedConfig{Kinds: []string{"gpu"}, Settle: "10ms"}
	server := serveTaints(n)
	server.drops.Store(true)
	d := startOnSockets(t, n)
	published(t, n, "gpu-0", "gpu-1")
	unmanageable := func(count int) {
		t.Helper()
		expect(t, n.registry, fmt.Sprintf(`
# HELP eks_hybrid_dra_unmanageable_devices Devices that the configuration gives to the controller and that are kube-scheduler's because the API server does not keep taints.
# TYPE eks_hybrid_dra_unmanageable_devices gauge
eks_hybrid_dra_unmanageable_devices %d
`, count), "eks_hybrid_dra_unmanageable_devices")
	}
	unmanageable(2)
	if allocators := publishedAllocators(t, n); len(allocators) > 0 {
		t.Errorf("published as managed: %v", allocators)
	}
	// The control plane is upgraded.
	server.drops.Store(false)
	d.tainting.mu.Lock()
	d.tainting.asked = d.tainting.asked.Add(-askEvery)
	d.tainting.mu.Unlock()
	d.republish.send()
	published(t, n, "gpu-0=controller", "gpu-1=controller")
	unmanageable(0)
}

// A node that never had managed devices does not ask about its labels, and has
// no file about allocators.
func TestANodeWithoutManagedDevicesIsLeftAlone(t *testing.T) {
	n := newNode(t, "gpu-0")
	server := serveTaints(n)
	startOnSockets(t, n)
	published(t, n, "gpu-0")
	files, err := filepath.Glob(filepath.Join(n.dir, "data", "allocators*"))
	if err != nil || len(files) > 0 || server.asked.Load() > 0 {
		t.Errorf("files %v, %v; %d questions", files, err, server.asked.Load())
	}
}

func TestWhoGivesDevicesIsKnownAfterARestart(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.managed = v1alpha1.ManagedConfig{Kinds: []string{"gpu"}}
	if err := os.MkdirAll(filepath.Join(n.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	state := map[string]any{"version": 1, "decider": 7, "bootID": "an earlier boot", "devices": map[string]any{"gpu-0": map[string]any{"allocator": "controller"}}}
	content, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "data", "allocators.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	d := n.start()
	wanted, err := d.wantedAllocators(t.Context(), d.inventory.pool())
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := d.allocators(t.Context(), wanted, features{taints: true, counters: true})
	if diff := cmp.Diff(map[string]managed.Allocator{"gpu-0": managed.Controller}, got); err != nil || diff != "" {
		t.Errorf("allocators, %v (-want +got):\n%s", err, diff)
	}
}

func TestAPairIsManagedAsAWhole(t *testing.T) {
	set := func(name string) []resourceapi.DeviceCounterConsumption {
		return []resourceapi.DeviceCounterConsumption{{CounterSet: name}}
	}
	n := newNode(t)
	n.managed = v1alpha1.ManagedConfig{Kinds: []string{"gpu-vf"}}
	d := n.start()
	wanted, err := d.wantedAllocators(t.Context(), pool{devices: []owned{
		{Device: device.Device{Name: "gpu-0", Kind: device.KindGPU, Consumes: set("gpu-0")}},
		{Device: device.Device{Name: "gpu-0-vf", Kind: device.KindGPUVF, Consumes: set("gpu-0")}},
		{Device: device.Device{Name: "vf-0", Kind: device.KindVF, Consumes: set("gpu-0")}},
		{Device: device.Device{Name: "vf-1", Kind: device.KindVF}},
	}})
	if err != nil || wanted.count != 3 || d.handovers.takenAlong != "gpu-0 vf-0" {
		t.Errorf("%d devices with %q taken along, %v; want 3 with the GPU and the VF", wanted.count, d.handovers.takenAlong, err)
	}
}

func TestOurTaintIsAmongThoseThatFit(t *testing.T) {
	d := owned{}
	for n := range resourceapi.DeviceTaintsMaxLength + 4 {
		d.problems = append(d.problems, problem{Problem: device.Problem{Reason: fmt.Sprintf("Reason%d", n)}})
	}
	taints := d.taints(managed.Settling, nil)
	if len(taints) != resourceapi.DeviceTaintsMaxLength || taints[0].Key != v1alpha1.TaintManaged || taints[0].Value != v1alpha1.ManagedSettling || taints[1].Key != v1alpha1.TaintUnhealthy {
		t.Errorf("taints %v", taints)
	}
}

func TestLabelsThatNobodyTells(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.managed = managedGPUs()
	d := n.start()
	_, err := d.wantedAllocators(t.Context(), d.inventory.pool())
	if err == nil || !strings.Contains(err.Error(), testNode) || !strings.Contains(err.Error(), "managed.nodeSelector") {
		t.Errorf("want an error that names the node and the field, got %v", err)
	}
	if _, err := n.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: testNode, Labels: map[string]string{"allocator": "controller"}}}, createOptions); err != nil {
		t.Fatal(err)
	}
	wanted, err := d.wantedAllocators(t.Context(), d.inventory.pool())
	if err != nil || wanted.count != 1 {
		t.Fatalf("%d devices, %v", wanted.count, err)
	}
	// Later silence changes nothing.
	if err := n.client.CoreV1().Nodes().Delete(t.Context(), testNode, deleteOptions); err != nil {
		t.Fatal(err)
	}
	if _, err := d.handovers.labels.ask(t.Context()); err == nil {
		t.Error("no error")
	}
	wanted, err = d.wantedAllocators(t.Context(), d.inventory.pool())
	if err != nil || !slices.ContainsFunc(wanted.devices, func(w managed.Device) bool { return w.Managed }) {
		t.Errorf("wants %v, %v", wanted.devices, err)
	}
}

// What the configuration may give to the controller are the kinds that are
// published.
func TestEveryKindCanBeManaged(t *testing.T) {
	for _, kind := range device.Kinds() {
		raw := "apiVersion: " + v1alpha1.SchemeGroupVersion.String() + "\nkind: NodeConfig\nmanaged: {kinds: [" + string(kind) + "]}"
		if _, err := v1alpha1.DecodeNodeConfig([]byte(raw)); err != nil {
			t.Errorf("kind %s: %v", kind, err)
		}
	}
}

// The classes in the manifests match what is published, there are two for each
// kind, and no class fails on any device.
func TestClassesOfTheManifestsMatchWhatIsPublished(t *testing.T) {
	classes := map[string][]string{}
	files, err := filepath.Glob("../../deployments/manifests/base/classes-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(content), "\n---\n") {
			var class resourceapi.DeviceClass
			if err := yaml.UnmarshalStrict([]byte(document), &class); err != nil {
				t.Fatal(err)
			}
			if managed := strings.HasPrefix(class.Name, "managed-"); managed != (class.Labels[v1alpha1.LabelManagedClass] == "true") {
				t.Errorf("class %s has labels %v", class.Name, class.Labels)
			}
			classes[class.Name] = matched(t, class)
		}
	}
	want := map[string][]string{}
	for _, k := range device.Kinds() {
		kind := string(k)
		want[kind+".eks-hybrid-dra"] = []string{kind + "=", kind + "=settling", kind + "=controller"}
		want["managed-"+kind+".eks-hybrid-dra"] = []string{kind + "=controller"}
	}
	if diff := cmp.Diff(want, classes); diff != "" {
		t.Errorf("classes and what they match (-want +got):\n%s", diff)
	}
}

// matched returns the devices that a class matches, of each kind and with each
// allocator.
func matched(t *testing.T, class resourceapi.DeviceClass) (names []string) {
	t.Helper()
	compiler := dracel.GetCompiler(dracel.Features{})
	for _, kind := range device.Kinds() {
		for _, allocator := range []managed.Allocator{"", managed.Settling, managed.Controller} {
			d := owned{Device: device.Device{Kind: kind, Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				device.AttributeType: {StringValue: ptr.To(string(kind))},
			}}}
			all := true
			for _, selector := range class.Spec.Selectors {
				compiled := compiler.CompileCELExpression(selector.CEL.Expression, dracel.Options{})
				if compiled.Error != nil {
					t.Fatal(compiled.Error)
				}
				match, _, err := compiled.DeviceMatches(t.Context(), dracel.Device{Driver: testDriver, Attributes: d.attributes(allocator)})
				if err != nil {
					t.Errorf("class %s fails on a %s of %q: %v", class.Name, kind, allocator, err)
				}
				all = all && match
			}
			if all {
				names = append(names, string(kind)+"="+string(allocator))
			}
		}
	}
	return names
}
