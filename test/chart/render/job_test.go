package render

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// uninstallPod is the pod that uninstalls a release with the defaults.
func uninstallPod() corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName: "eks-hybrid-dra-uninstall",
		RestartPolicy:      corev1.RestartPolicyNever,
		PriorityClassName:  "system-cluster-critical",
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532), RunAsGroup: ptr.To[int64](65532),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 100,
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"hybrid"}},
			}},
		}}}},
		Tolerations: []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		Containers: []corev1.Container{{
			Name: "uninstall", Image: "localhost/eks-hybrid-dra:dev", ImagePullPolicy: corev1.PullIfNotPresent,
			Command: []string{"/usr/bin/controller", "uninstall"},
			Args: []string{
				"--driver-name=eks-hybrid-dra", "--plugin=eks-hybrid-dra-kubelet-plugin", "--controller=eks-hybrid-dra-controller",
				"--skip-unreachable-nodes=false", "--keep-command=helm rollback eks-hybrid-dra 1 --namespace eks-hybrid-dra", "--timeout=180s", "-v=0",
			},
			Env:                      []corev1.EnvVar{{Name: "POD_NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}},
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
			},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}
}

// The Job is told of all that is installed, and can run where the controller can.
func TestPodThatUninstalls(t *testing.T) {
	helmProgram(t)
	for name, test := range map[string]struct {
		release release
		job     string
		// other is in what the pod differs from the default.
		other func(*corev1.PodSpec, *corev1.Container)
	}{
		"defaults": {release{}, "eks-hybrid-dra-uninstall", func(*corev1.PodSpec, *corev1.Container) {}},
		"all that there is to undo": {
			release{values: `
driver: {enableSRIOV: true}
nodeConfig: {devicePlugin: {kinds: [gpu, vf], vfResources: [{name: nvidia.com/vf}]}}
hybrid:
  cniAffinity: {daemonSets: [{preset: cilium}]}
  registry: {enabled: true, existingSecret: registries}
uninstall: {timeoutSeconds: 60, skipUnreachableNodes: true}
`},
			"eks-hybrid-dra-uninstall",
			func(pod *corev1.PodSpec, container *corev1.Container) {
				container.Args = []string{
					"--driver-name=eks-hybrid-dra", "--plugin=eks-hybrid-dra-kubelet-plugin", "--resources=nvidia.com/gpu,nvidia.com/vf",
					"--controller=eks-hybrid-dra-controller", "--registry-trust=eks-hybrid-dra-registry-trust", "--hybrid-config=/etc/eks-hybrid-dra/hybrid/hybrid.yaml",
					"--skip-unreachable-nodes=true", "--keep-command=helm rollback eks-hybrid-dra 1 --namespace eks-hybrid-dra", "--timeout=60s", "-v=0",
				}
				container.VolumeMounts = []corev1.VolumeMount{{Name: "hybrid", MountPath: "/etc/eks-hybrid-dra/hybrid", ReadOnly: true}}
				pod.Volumes = []corev1.Volume{{Name: "hybrid", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "eks-hybrid-dra-hybrid"}, Optional: ptr.To(true),
				}}}}
			},
		},
		"another place and image": {
			release{name: "dra", namespace: "gpus", values: `
driver: {name: gpus.example.com}
image: {repository: registry.example.com/x, tag: v1, pullPolicy: Always}
imagePullSecrets: [{name: harbor}]
controller: {enabled: false, nodeSelector: {role: system}, affinity: {podAffinity: {}}, tolerations: [{operator: Exists}], priorityClassName: "", logLevel: 2}
priorityClass: {create: true}
`},
			"dra-eks-hybrid-dra-uninstall",
			func(pod *corev1.PodSpec, container *corev1.Container) {
				pod.ServiceAccountName = "dra-eks-hybrid-dra-uninstall"
				pod.PriorityClassName = "dra-eks-hybrid-dra"
				pod.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "harbor"}}
				pod.NodeSelector = map[string]string{"role": "system"}
				pod.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}}
				pod.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
				container.Image, container.ImagePullPolicy = "registry.example.com/x:v1", corev1.PullAlways
				container.Args = []string{
					"--driver-name=gpus.example.com", "--plugin=dra-eks-hybrid-dra-kubelet-plugin", "--controller=",
					"--skip-unreachable-nodes=false", "--keep-command=helm rollback dra 1 --namespace gpus", "--timeout=180s", "-v=2",
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := uninstallPod()
			test.other(&want, &want.Containers[0])
			got := into[batchv1.Job](t, test.release.objects(t), "Job", test.job).Spec.Template.Spec
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
