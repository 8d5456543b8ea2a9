package render

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
)

// TestPodsHaveNoMoreRightsThanTheyNeed says which these are; whether they are
// enough is for the tests on a cluster.
func TestPodsHaveNoMoreRightsThanTheyNeed(t *testing.T) {
	helmProgram(t)
	least := func(user int64) *corev1.SecurityContext {
		return &corev1.SecurityContext{
			RunAsUser: &user, RunAsGroup: &user,
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	simulated := least(0)
	simulated.Capabilities.Add = []corev1.Capability{"MKNOD"}
	labelled := least(0)
	labelled.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
	privileged := &corev1.SecurityContext{Privileged: ptr.To(true), ReadOnlyRootFilesystem: ptr.To(true)}
	host := []string{"/", "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry", "/var/run/cdi"}
	extended := []string{"/dev", "/var/lib/kubelet/device-plugins", "/var/run/k8s.cni.cncf.io/devinfo/dp"}
	containerd := []string{"/etc/containerd", "/etc/containerd/certs.d"}
	for _, test := range []struct {
		set, kind, component string
		want                 *corev1.SecurityContext
		folders, written     []string
		hostNetwork          bool
	}{
		{"defaults", "DaemonSet", "kubelet-plugin", privileged, append([]string{"/dev"}, host...), append([]string{"/dev"}, host[1:]...), false},
		{"by the device plugin API", "DaemonSet", "kubelet-plugin", privileged, append(slices.Clone(extended), host...), append(slices.Clone(extended), host[1:]...), false},
		// Pods may still have some, and what is told of them lies there.
		{"no longer by the device plugin API", "DaemonSet", "kubelet-plugin", privileged, append(slices.Clone(extended), host...), append(slices.Clone(extended), host[1:]...), false},
		{"without privileges", "DaemonSet", "kubelet-plugin", labelled, host, host[1:], false},
		{"a simulated machine", "DaemonSet", "kubelet-plugin", simulated, host, host[1:], false},
		{"defaults", "Deployment", "controller", least(65532), nil, nil, false},
		{"defaults", "Job", "uninstall", least(65532), nil, nil, false},
		{"registries from a Secret", "DaemonSet", "registry-trust", least(0), containerd, containerd[1:], true},
		{"registries that are given up", "DaemonSet", "registry-trust", least(0), containerd, containerd[1:], true},
	} {
		t.Run(test.set+"/"+test.component, func(t *testing.T) {
			list := sets()[test.set].objects(t)
			spec := podSpec(t, list, list.get(t, test.kind, "eks-hybrid-dra-"+test.component))
			if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
				t.Fatalf("%d containers", len(spec.Containers))
			}
			if diff := cmp.Diff(test.want, effective(spec)); diff != "" {
				t.Errorf("security context (-want +got):\n%s", diff)
			}
			if spec.HostPID || spec.HostIPC || spec.HostNetwork != test.hostNetwork {
				t.Errorf("hostPID %t, hostIPC %t, hostNetwork %t", spec.HostPID, spec.HostIPC, spec.HostNetwork)
			}
			folders, written := hostFolders(spec)
			slices.Sort(test.folders)
			slices.Sort(test.written)
			if diff := cmp.Diff(test.folders, folders); diff != "" {
				t.Errorf("folders of the host (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.written, written); diff != "" {
				t.Errorf("folders of the host that are written (-want +got):\n%s", diff)
			}
			for _, port := range spec.Containers[0].Ports {
				if port.HostPort != 0 {
					t.Errorf("port %d is taken on the host, which keeps a second pod away during an update", port.HostPort)
				}
			}
		})
	}
}

// effective is the container's security context with what it has of its pod's.
func effective(spec corev1.PodSpec) *corev1.SecurityContext {
	context := spec.Containers[0].SecurityContext.DeepCopy()
	pod := spec.SecurityContext
	if pod == nil {
		return context
	}
	context.RunAsUser, context.RunAsGroup, context.SeccompProfile = pod.RunAsUser, pod.RunAsGroup, pod.SeccompProfile
	return context
}

func hostFolders(spec corev1.PodSpec) (mounted, written []string) {
	readOnly := map[string]bool{}
	for _, mount := range spec.Containers[0].VolumeMounts {
		readOnly[mount.Name] = mount.ReadOnly
	}
	for _, volume := range spec.Volumes {
		if volume.HostPath == nil {
			continue
		}
		mounted = append(mounted, volume.HostPath.Path)
		if !readOnly[volume.Name] {
			written = append(written, volume.HostPath.Path)
		}
	}
	slices.Sort(mounted)
	slices.Sort(written)
	return mounted, written
}

func TestGPUsAreGivenByTheRuntimeWhereThePluginHasNoPrivileges(t *testing.T) {
	helmProgram(t)
	variables := func(set string) map[string]string {
		list := sets()[set].objects(t)
		spec := podSpec(t, list, list.get(t, "DaemonSet", "eks-hybrid-dra-kubelet-plugin"))
		found := map[string]string{"RuntimeClass": ptr.Deref(spec.RuntimeClassName, "")}
		for _, variable := range spec.Containers[0].Env {
			if variable.Value != "" {
				found[variable.Name] = variable.Value
			}
		}
		return found
	}
	want := map[string]string{"RuntimeClass": "nvidia", "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility"}
	if diff := cmp.Diff(want, variables("without privileges")); diff != "" {
		t.Errorf("without privileges (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"RuntimeClass": ""}, variables("defaults")); diff != "" {
		t.Errorf("with privileges (-want +got):\n%s", diff)
	}
}

func TestPluginIsOnHybridNodesAndLeavesNoGapDuringAnUpdate(t *testing.T) {
	helmProgram(t)
	list := sets()["defaults"].objects(t)
	set := into[appsv1.DaemonSet](t, list, "DaemonSet", "eks-hybrid-dra-kubelet-plugin")
	update := set.Spec.UpdateStrategy.RollingUpdate
	if update.MaxSurge.String() != "1" || update.MaxUnavailable.String() != "0" {
		t.Errorf("update %+v", update)
	}
	pod := set.Spec.Template.Spec
	if diff := cmp.Diff(map[string]string{"eks.amazonaws.com/compute-type": "hybrid"}, pod.NodeSelector); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}}, pod.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	list = sets()["as little as possible"].objects(t)
	everywhere := podSpec(t, list, list.get(t, "DaemonSet", "eks-hybrid-dra-kubelet-plugin"))
	if len(everywhere.NodeSelector) > 0 || len(everywhere.Tolerations) > 0 {
		t.Errorf("a selector that was taken away still is %v, tolerations %v", everywhere.NodeSelector, everywhere.Tolerations)
	}
}

func TestControllerKeepsToCloudNodesAsFarAsItIsTold(t *testing.T) {
	helmProgram(t)
	notHybrid := []corev1.NodeSelectorRequirement{{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"hybrid"}}}
	preferred := &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
		{Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: notHybrid}},
	}}
	required := &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: notHybrid}},
	}}
	for where, want := range map[string]*corev1.NodeAffinity{"preferred": preferred, "required": required, "ignored": nil} {
		deployment := controllerOf(t, release{set: []string{"--set=controller.cloudNodes=" + where}})
		var got *corev1.NodeAffinity
		if affinity := deployment.Spec.Template.Spec.Affinity; affinity != nil {
			got = affinity.NodeAffinity
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", where, diff)
		}
	}
}

func controllerOf(t *testing.T, r release) *appsv1.Deployment {
	t.Helper()
	return into[appsv1.Deployment](t, r.objects(t), "Deployment", "eks-hybrid-dra-controller")
}

// Two replicas are spread, and one of them stays during a drain; a budget for one
// alone would keep its node from being drained.
func TestReplicasAreSpreadAndKept(t *testing.T) {
	helmProgram(t)
	deployment := controllerOf(t, release{})
	if *deployment.Spec.Replicas != 2 {
		t.Errorf("%d replicas", *deployment.Spec.Replicas)
	}
	var keys []string
	for _, constraint := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
		keys = append(keys, constraint.TopologyKey)
		if diff := cmp.Diff(deployment.Spec.Selector, constraint.LabelSelector); diff != "" {
			t.Errorf("pods that are spread by %s (-want +got):\n%s", constraint.TopologyKey, diff)
		}
	}
	if diff := cmp.Diff([]string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"}, keys); diff != "" {
		t.Errorf("spread by (-want +got):\n%s", diff)
	}
	for replicas, want := range map[string]bool{"1": false, "2": true, "3": true} {
		list := release{set: []string{"--set=controller.replicas=" + replicas}}.objects(t)
		if got := list.has("PodDisruptionBudget", "eks-hybrid-dra-controller"); got != want {
			t.Errorf("%s replicas: there is a budget: %t", replicas, got)
		}
	}
}

// The certificate is the controller's: what the chart has of it would be put
// back by every upgrade.
func TestCertificateIsLeftToTheController(t *testing.T) {
	helmProgram(t)
	list := release{}.objects(t)
	for _, object := range []*unstructured.Unstructured{list.get(t, "Secret", "eks-hybrid-dra-webhook"), list.get(t, "ValidatingWebhookConfiguration", "eks-hybrid-dra")} {
		for _, field := range []string{"data", "stringData"} {
			if _, ok := object.Object[field]; ok {
				t.Errorf("%s %s has %s", object.GetKind(), object.GetName(), field)
			}
		}
		hooks, _, err := unstructured.NestedSlice(object.Object, "webhooks")
		if err != nil {
			t.Fatal(err)
		}
		for _, hook := range hooks {
			fields, ok := hook.(map[string]any)
			if _, has, err := unstructured.NestedFieldNoCopy(fields, "clientConfig", "caBundle"); !ok || has || err != nil {
				t.Errorf("a webhook has a caBundle, or is none: %v", hook)
			}
		}
	}
}
