package admission

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/dynamic-resource-allocation/api/v1beta1"
	"k8s.io/dynamic-resource-allocation/api/v1beta2"
)

// decoder reads the objects of requests.
type decoder struct {
	claims runtime.Decoder
}

func newDecoder() (*decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{resourceapi.AddToScheme, v1beta2.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the versions of resource.k8s.io: %w", err)
		}
	}
	return &decoder{claims: serializer.NewCodecFactory(scheme).UniversalDecoder(resourceapi.SchemeGroupVersion)}, nil
}

// claim is what a ResourceClaim says, or a ResourceClaimTemplate for the claims
// that are made from it.
type claim struct {
	spec    resourceapi.ResourceClaimSpec
	labels  map[string]string
	deleted bool

	// Paths are those in the version in which the user wrote it.
	specPath   *field.Path
	labelsPath *field.Path
	// flat is whether a request names its class itself, and not in "exactly".
	flat bool
}

// claim reads a claim or a template of any version.
func (d *decoder) claim(raw []byte, kind metav1.GroupVersionKind) (*claim, error) {
	object, _, err := d.claims.Decode(raw, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return nil, fmt.Errorf("read %s of %s/%s: this release of the controller does not know that version", kind.Kind, kind.Group, kind.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of %s/%s: %w", kind.Kind, kind.Group, kind.Version, err)
	}
	flat := kind.Version == "v1beta1"
	switch o := object.(type) {
	case *resourceapi.ResourceClaim:
		return &claim{
			spec: o.Spec, labels: o.Labels, deleted: o.DeletionTimestamp != nil,
			specPath: field.NewPath("spec"), labelsPath: field.NewPath("metadata", "labels"), flat: flat,
		}, nil
	case *resourceapi.ResourceClaimTemplate:
		path := field.NewPath("spec")
		return &claim{
			spec: o.Spec.Spec, labels: o.Spec.Labels, deleted: o.DeletionTimestamp != nil,
			specPath: path.Child("spec"), labelsPath: path.Child("metadata", "labels"), flat: flat,
		}, nil
	default:
		return nil, fmt.Errorf("read %s of %s/%s: neither a ResourceClaim nor a ResourceClaimTemplate", kind.Kind, kind.Group, kind.Version)
	}
}

// classPath is where a request, or an alternative of it, names its class. The
// alternative is -1 for a request without.
func (c *claim) classPath(request, alternative int) *field.Path {
	path := c.specPath.Child("devices", "requests").Index(request)
	switch {
	case alternative >= 0:
		path = path.Child("firstAvailable").Index(alternative)
	case !c.flat:
		path = path.Child("exactly")
	}
	return path.Child("deviceClassName")
}

func (d *decoder) pod(raw []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(raw, pod); err != nil {
		return nil, fmt.Errorf("read the Pod: %w", err)
	}
	return pod, nil
}
