package render

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func podAnnotations(t *testing.T, workload *unstructured.Unstructured) map[string]string {
	t.Helper()
	annotations, _, err := unstructured.NestedStringMap(workload.Object, "spec", "template", "metadata", "annotations")
	if err != nil {
		t.Fatal(err)
	}
	return annotations
}

// Names and namespaces follow the release, and what refers to something finds it.
func TestNamesFollowTheRelease(t *testing.T) {
	helmProgram(t)
	const on = "--set=hybrid.registry.enabled=true,hybrid.registry.existingSecret=x,priorityClass.create=true"
	// Two that differ at their end only, as long as Helm allows.
	long := strings.Repeat("x", 52)
	for _, test := range []struct {
		release release
		want    string
	}{
		{release{set: []string{on}}, "eks-hybrid-dra"},
		{release{name: "dra-driver", namespace: "kube-system", set: []string{on}}, "dra-driver-eks-hybrid-dra"},
		{release{name: "my-eks-hybrid-dra", namespace: "gpus", set: []string{on}}, "my-eks-hybrid-dra"},
		{release{name: "a", namespace: "gpus", set: []string{on, "--set=fullnameOverride=dgx"}}, "dgx"},
		{release{name: "a", namespace: "gpus", set: []string{on, "--set=nameOverride=dgx"}}, "a-dgx"},
		{release{name: long + "a", namespace: "gpus", set: []string{on}}, shortened(long + "a-eks-hybrid-dra")},
		{release{name: long + "b", namespace: "gpus", set: []string{on}}, shortened(long + "b-eks-hybrid-dra")},
		{release{name: "a", namespace: "gpus", set: []string{on, "--set=fullnameOverride=" + long[:40]}}, long[:40]},
	} {
		t.Run(test.want, func(t *testing.T) {
			_, namespace := test.release.where()
			list := test.release.objects(t)
			for _, object := range list {
				checkName(t, object, test.want, namespace)
			}
			checkReferences(t, list, namespace)
			checkSelectors(t, list)
		})
	}
}

// shortened is how a long name is kept apart from others that begin like it.
func shortened(name string) string {
	return fmt.Sprintf("%s-%x", name[:31], sha256.Sum256([]byte(name)))[:40]
}

// checkName is about one object of a release whose objects' names begin alike.
func checkName(t *testing.T, object *unstructured.Unstructured, fullName, namespace string) {
	t.Helper()
	about := object.GetKind() + " " + object.GetName()
	if object.GetKind() == "DeviceClass" {
		if !strings.HasSuffix(object.GetName(), ".eks-hybrid-dra") {
			t.Errorf("%s is not called after the driver", about)
		}
	} else if object.GetName() != fullName && !strings.HasPrefix(object.GetName(), fullName+"-") {
		t.Errorf("%s does not begin with %s", about, fullName)
	}
	if object.GetKind() != "DeviceClass" {
		if problems := validation.IsDNS1035Label(object.GetName()); len(problems) > 0 {
			t.Errorf("%s: %s", about, problems)
		}
	}
	cluster := []string{"ClusterRole", "ClusterRoleBinding", "DeviceClass", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"}
	want := namespace
	switch {
	case slices.Contains(cluster, object.GetKind()):
		want = ""
	case strings.HasSuffix(object.GetName(), "-registry-trust") && strings.HasPrefix(object.GetKind(), "Role"):
		want = "default" // where events about nodes are
	}
	if object.GetNamespace() != want {
		t.Errorf("%s is of namespace %q, want %q", about, object.GetNamespace(), want)
	}
	labels := object.GetLabels()
	if labels["app.kubernetes.io/managed-by"] != "Helm" || labels["app.kubernetes.io/part-of"] != "eks-hybrid-dra" || labels["app.kubernetes.io/component"] == "" {
		t.Errorf("%s has labels %v", about, labels)
	}
}

// checkReferences finds what roles are bound, and what pods mount.
func checkReferences(t *testing.T, list objects, namespace string) {
	t.Helper()
	for _, object := range list {
		switch object.GetKind() {
		case "ClusterRoleBinding", "RoleBinding":
			binding := into[rbacv1.RoleBinding](t, list, object.GetKind(), object.GetName())
			if !list.has(binding.RoleRef.Kind, binding.RoleRef.Name) {
				t.Errorf("%s %s binds a role that is not there: %v", object.GetKind(), object.GetName(), binding.RoleRef)
			}
			for _, subject := range binding.Subjects {
				if subject.Namespace != namespace || !list.has("ServiceAccount", subject.Name) {
					t.Errorf("%s %s is for somebody who is not there: %v", object.GetKind(), object.GetName(), subject)
				}
			}
		case "DaemonSet", "Deployment", "Job":
			spec := podSpec(t, list, object)
			if !list.has("ServiceAccount", spec.ServiceAccountName) {
				t.Errorf("%s runs as %s, which is not there", object.GetName(), spec.ServiceAccountName)
			}
			for _, volume := range spec.Volumes {
				if volume.ConfigMap != nil && !list.has("ConfigMap", volume.ConfigMap.Name) {
					t.Errorf("%s mounts ConfigMap %s, which is not there", object.GetName(), volume.ConfigMap.Name)
				}
			}
		}
	}
}

// podSpec is that of a workload.
func podSpec(t *testing.T, list objects, object *unstructured.Unstructured) corev1.PodSpec {
	t.Helper()
	switch object.GetKind() {
	case "DaemonSet":
		return into[appsv1.DaemonSet](t, list, "DaemonSet", object.GetName()).Spec.Template.Spec
	case "Job":
		return into[batchv1.Job](t, list, "Job", object.GetName()).Spec.Template.Spec
	}
	return into[appsv1.Deployment](t, list, "Deployment", object.GetName()).Spec.Template.Spec
}

// checkSelectors compares what chooses pods with the pods of all workloads: each
// chooses those of one.
func checkSelectors(t *testing.T, list objects) {
	t.Helper()
	pods := map[string]map[string]string{}
	selectors := map[string]map[string]string{}
	at := map[string][]string{
		"DaemonSet": {"spec", "selector", "matchLabels"}, "Deployment": {"spec", "selector", "matchLabels"}, "Service": {"spec", "selector"},
		"PodDisruptionBudget": {"spec", "selector", "matchLabels"}, "NetworkPolicy": {"spec", "podSelector", "matchLabels"},
	}
	for _, object := range list {
		path, ok := at[object.GetKind()]
		if !ok {
			continue
		}
		selector, _, err := unstructured.NestedStringMap(object.Object, path...)
		if err != nil {
			t.Fatal(err)
		}
		selectors[object.GetKind()+" "+object.GetName()] = selector
		if labels, found, err := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels"); err != nil {
			t.Fatal(err)
		} else if found {
			pods[object.GetName()] = labels
		}
	}
	for about, selector := range selectors {
		var chosen []string
		for name, labels := range pods {
			merged := maps.Clone(labels)
			maps.Copy(merged, selector)
			if maps.Equal(merged, labels) {
				chosen = append(chosen, name)
			}
		}
		if len(chosen) != 1 {
			t.Errorf("%s chooses the pods of %q by %v", about, chosen, selector)
		}
	}
}

// classes are the names of the chart's DeviceClasses, without that of the driver.
func classes() []string {
	var names []string
	for _, kind := range device.Kinds() {
		names = append(names, string(kind), "managed-"+string(kind))
	}
	return names
}

// Everything that kubelet, the scheduler or the API server matches by the
// driver's name has that of driver.name.
func TestEverythingFollowsTheNameOfTheDriver(t *testing.T) {
	helmProgram(t)
	const driver = "gpus.example.com"
	set := sets()["another driver"]
	list := set.objects(t)
	for _, kind := range classes() {
		class := into[resourceapi.DeviceClass](t, list, "DeviceClass", kind+"."+driver)
		expression := class.Spec.Selectors[0].CEL.Expression
		want := fmt.Sprintf("device.driver == '%s' && device.attributes['%s'].type == '%s'", driver, driver, strings.TrimPrefix(kind, "managed-"))
		if !strings.HasPrefix(expression, want) || strings.Contains(expression, "eks-hybrid-dra") {
			t.Errorf("class %s: %s", class.Name, expression)
		}
	}
	for _, object := range []*unstructured.Unstructured{
		list.get(t, "DaemonSet", set.fullName()+"-kubelet-plugin"), list.get(t, "Deployment", set.fullName()+"-controller"),
	} {
		if args := podSpec(t, list, object).Containers[0].Args; !slices.Contains(args, "--driver-name="+driver) {
			t.Errorf("%s has arguments %q", object.GetName(), args)
		}
	}
	role := into[rbacv1.ClusterRole](t, list, "ClusterRole", set.fullName()+"-kubelet-plugin")
	names := slices.Collect(func(yield func([]string) bool) {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "resourceclaims/driver") && !yield(rule.ResourceNames) {
				return
			}
		}
	})
	if diff := cmp.Diff([][]string{{driver}}, names); diff != "" {
		t.Errorf("drivers whose devices the plugin may write about (-want +got):\n%s", diff)
	}
	text, err := set.text(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"variables.tokenNode + '/" + driver + "'", "variables.slice.spec.driver == '" + driver + "'", "d.driver != '" + driver + "'",
		"'system:serviceaccount:two:eks-hybrid-dra-two-kubelet-plugin'", "'system:serviceaccount:two:eks-hybrid-dra-two-controller'",
		"claims.admission." + driver, "pods.admission." + driver,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is nowhere", want)
		}
	}
}

const extendedResources = "deviceClasses.extendedResourceNames."

func TestExtendedResourcesAreOfTheirClasses(t *testing.T) {
	helmProgram(t)
	list := sets()["everything"].objects(t)
	want := map[string]string{
		"gpu": "nvidia.com/gpu", "vf": "example.com/vf", "gpu-vf": "example.com/pair",
		"managed-gpu": "example.com/managed-gpu", "managed-vf": "example.com/managed-vf", "managed-gpu-vf": "example.com/managed-pair",
	}
	values := slices.DeleteFunc(slices.Collect(maps.Keys(documented(t))), func(path string) bool { return !strings.HasPrefix(path, extendedResources) })
	slices.Sort(values)
	named := classes()
	for i := range named {
		named[i] = extendedResources + named[i]
	}
	slices.Sort(named)
	if diff := cmp.Diff(named, values); diff != "" {
		t.Errorf("values that name resources, for each class (-classes +values):\n%s", diff)
	}
	got := map[string]string{}
	for _, kind := range classes() {
		got[kind] = ptr.Deref(into[resourceapi.DeviceClass](t, list, "DeviceClass", kind+".dgx.example.com").Spec.ExtendedResourceName, "")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if name := into[resourceapi.DeviceClass](t, sets()["defaults"].objects(t), "DeviceClass", "gpu.eks-hybrid-dra").Spec.ExtendedResourceName; name != nil {
		t.Errorf("by default GPUs serve %s", *name)
	}
}

func TestImageIsByTagOrDigest(t *testing.T) {
	helmProgram(t)
	for name, want := range map[string]string{
		"defaults":                 "localhost/eks-hybrid-dra:dev",
		"everything":               "registry.example.com/team/eks-hybrid-dra:v0.1",
		"registries from a Secret": "localhost/eks-hybrid-dra@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	} {
		list := sets()[name].objects(t)
		for _, object := range list {
			if !slices.Contains([]string{"DaemonSet", "Deployment", "Job"}, object.GetKind()) {
				continue
			}
			for _, container := range podSpec(t, list, object).Containers {
				if container.Image != want {
					t.Errorf("%s: %s runs %s, want %s", name, object.GetName(), container.Image, want)
				}
			}
		}
	}
}

// All pods can be pulled with the same credentials, also the one that uninstalls.
func TestAllPodsHaveThePullSecrets(t *testing.T) {
	helmProgram(t)
	list := sets()["everything"].objects(t)
	want := []corev1.LocalObjectReference{{Name: "harbor"}, {Name: "ecr"}}
	for kind, components := range map[string][]string{
		"DaemonSet": {"kubelet-plugin", "registry-trust"}, "Deployment": {"controller"}, "Job": {"uninstall"},
	} {
		for _, component := range components {
			if diff := cmp.Diff(want, podSpec(t, list, list.get(t, kind, "dgx-"+component)).ImagePullSecrets); diff != "" {
				t.Errorf("%s (-want +got):\n%s", component, diff)
			}
		}
	}
}

// Who renders the chart without a cluster and applies all of it, hooks too, must not
// remove the driver at once. That helm itself runs the Job is for the tests on a
// cluster.
func TestUninstallWaitsWhereItIsAppliedByHand(t *testing.T) {
	helmProgram(t)
	job := into[batchv1.Job](t, sets()["defaults"].objects(t), "Job", "eks-hybrid-dra-uninstall")
	if !ptr.Deref(job.Spec.Suspend, false) {
		t.Error("it starts when it is applied")
	}
}

// Ports of a policy are those that containers have.
func TestNetworkPoliciesLetInWhatIsServed(t *testing.T) {
	helmProgram(t)
	list := sets()["everything"].objects(t)
	for name, want := range map[string][]int32{"kubelet-plugin": {9464}, "controller": {9443, 9465}} {
		policy := into[networkingv1.NetworkPolicy](t, list, "NetworkPolicy", "dgx-"+name)
		var ports []int32
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				ports = append(ports, port.Port.IntVal)
				if webhook := port.Port.IntVal == 9443; webhook != (len(rule.From) == 0) {
					t.Errorf("%s lets %v in at port %d", name, rule.From, port.Port.IntVal)
				}
			}
		}
		slices.Sort(ports)
		if diff := cmp.Diff(want, ports); diff != "" {
			t.Errorf("%s lets in (-want +got):\n%s", name, diff)
		}
		var out []string
		for _, port := range policy.Spec.Egress[0].Ports {
			out = append(out, string(*port.Protocol)+" "+port.Port.String())
		}
		if diff := cmp.Diff([]string{"UDP 53", "TCP 53", "TCP 6443"}, out); diff != "" || len(policy.Spec.Egress) != 1 {
			t.Errorf("%s lets out (-want +got):\n%s", name, diff)
		}
	}
}

// Nobody is granted anything twice: what one rule gives up, the other would keep.
func TestNothingIsGrantedTwice(t *testing.T) {
	helmProgram(t)
	for name, set := range sets() {
		list := set.objects(t)
		for _, object := range list {
			if object.GetKind() != "ClusterRole" && object.GetKind() != "Role" {
				continue
			}
			granted := map[string]bool{}
			for _, rule := range into[rbacv1.Role](t, list, object.GetKind(), object.GetName()).Rules {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						grant := fmt.Sprint(rule.APIGroups, resource, rule.ResourceNames, verb)
						if granted[grant] {
							t.Errorf("%s: %s %s has %s twice", name, object.GetKind(), object.GetName(), grant)
						}
						granted[grant] = true
					}
				}
			}
		}
	}
}
