package uninstall

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// Pods that have devices by kubelet's device plugin API have no claims.
func TestPodsWithoutClaimsAreListed(t *testing.T) {
	s := newSite(t, "dgx-0")
	wantPods(t, s)
	for name, pod := range map[string]*corev1.Pod{
		"classic":   {Spec: corev1.PodSpec{NodeName: "dgx-0"}},
		"elsewhere": {Spec: corev1.PodSpec{NodeName: "cloud-0"}},
		"ended":     {Spec: corev1.PodSpec{NodeName: "dgx-0"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}},
		"by-a-claim": {Spec: corev1.PodSpec{NodeName: "dgx-0"}, Status: corev1.PodStatus{
			ExtendedResourceClaimStatus: &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "c"},
		}},
	} {
		pod.Namespace, pod.Name = "team", name
		pod.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("2")},
		}}}
		s.must(s.client.Tracker().Add(pod))
	}
	o := s.options()
	o.Resources = []string{"nvidia.com/ib_vf", "nvidia.com/gpu"}
	wantError(t, s.run(o, patience), "in use by 1 claim or pod", "team/classic: pod on dgx-0 with nvidia.com/gpu")
	s.wantAsBefore()
	s.must(s.client.CoreV1().Pods("team").Delete(t.Context(), "classic", metav1.DeleteOptions{}))
	s.must(s.run(o, patience))
}

// Kubernetes before 1.34 has neither claims nor slices, and pods may have devices
// all the same.
func TestClusterWithoutClaims(t *testing.T) {
	s := newSite(t, "dgx-0")
	wantPods(t, s)
	s.client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		resource := action.GetResource()
		return resource.Group == resourceapi.GroupName, nil, apierrors.NewNotFound(resource.GroupResource(), "")
	})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "classic"}, Spec: corev1.PodSpec{NodeName: "dgx-0", Containers: []corev1.Container{{
		Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("2")}},
	}}}}
	s.must(s.client.Tracker().Add(pod))
	o := s.options()
	o.Resources = []string{"nvidia.com/gpu"}
	wantError(t, s.run(o, patience), "in use by 1 claim or pod", "team/classic")
	s.must(s.client.CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))
	s.must(s.run(o, patience))
	if args, _, _ := s.args("plugin"); args[0] != "remove" {
		t.Errorf("the plugin runs %q", args)
	}
}
