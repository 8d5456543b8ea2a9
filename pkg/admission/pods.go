package admission

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
)

// validatePod refuses a pod that asks for devices of this driver and gives them
// to no container: it would hold them, and see nothing of them.
func (v *Validator) validatePod(ctx context.Context, namespace string, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	used := usedClaims(pod)
	for i, claim := range pod.Spec.ResourceClaims {
		if slices.Contains(used, claim.Name) || !v.podClaimOurs(ctx, namespace, claim) {
			continue
		}
		errs = append(errs, field.Invalid(field.NewPath("spec", "resourceClaims").Index(i), claim.Name, fmt.Sprintf(
			"no container uses this claim, so that its devices would be taken and none would see them: "+
				"add \"- name: %s\" to resources.claims of the container that needs them, or remove the claim from the pod", claim.Name)))
	}
	return errs
}

// usedClaims returns the names of the claims that containers list, sidecars and
// init containers among them.
func usedClaims(pod *corev1.Pod) []string {
	var names []string
	add := func(claims []corev1.ResourceClaim) {
		for _, c := range claims {
			names = append(names, c.Name)
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range containers {
			add(c.Resources.Claims)
		}
	}
	if pod.Spec.Resources != nil {
		add(pod.Spec.Resources.Claims)
	}
	return names
}

// podClaimOurs tells whether a pod's claim asks for devices of this driver. One
// that is not known, because it will be made after the pod, is none.
func (v *Validator) podClaimOurs(ctx context.Context, namespace string, ref corev1.PodResourceClaim) bool {
	var spec *resourceapi.ResourceClaimSpec
	switch {
	case ref.ResourceClaimName != nil:
		var claim resourceapi.ResourceClaim
		if err := v.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: *ref.ResourceClaimName}, &claim); err != nil {
			v.unknown(ctx, err, "ResourceClaim", *ref.ResourceClaimName)
			return false
		}
		spec = &claim.Spec
	case ref.ResourceClaimTemplateName != nil:
		var template resourceapi.ResourceClaimTemplate
		if err := v.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: *ref.ResourceClaimTemplateName}, &template); err != nil {
			v.unknown(ctx, err, "ResourceClaimTemplate", *ref.ResourceClaimTemplateName)
			return false
		}
		spec = &template.Spec.Spec
	default:
		return false
	}
	return slices.ContainsFunc(classes.Of(spec), func(a classes.Asked) bool {
		class, _ := v.class(ctx, a.Class)
		return class.Ours
	})
}
