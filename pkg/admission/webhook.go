package admission

import (
	"context"

	admissionv1 "k8s.io/api/admission/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
)

// Paths that the webhook configuration names.
const (
	PathClaims = "/validate-claims"
	PathPods   = "/validate-pods"
)

// Validator decides about claims, templates and pods. It is safe for concurrent
// use.
type Validator struct {
	driver  string
	reader  client.Reader
	classes *classes.Reader
	configs *v1alpha1.Decoder
	decode  *decoder
}

// New returns a validator for the driver. It looks up DeviceClasses,
// ResourceClaims and ResourceClaimTemplates, which is to be answered from
// memory: what is not known is not judged.
func New(driver string, reader client.Reader) (*Validator, error) {
	decode, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &Validator{
		driver: driver, reader: reader, classes: classes.NewReader(driver),
		configs: v1alpha1.NewDecoder(), decode: decode,
	}, nil
}

// Register makes the server serve the validator.
func (v *Validator) Register(server webhook.Server) {
	server.Register(PathClaims, &admission.Webhook{Handler: admission.HandlerFunc(v.Claims)})
	server.Register(PathPods, &admission.Webhook{Handler: admission.HandlerFunc(v.Pods)})
}

// Claims decides about a ResourceClaim or a ResourceClaimTemplate.
func (v *Validator) Claims(ctx context.Context, request admission.Request) admission.Response {
	if request.Operation != admissionv1.Create && request.Operation != admissionv1.Update || request.SubResource != "" {
		return admission.Allowed("")
	}
	now, err := v.decode.claim(request.Object.Raw, request.Kind)
	if err != nil {
		return notJudged(ctx, err)
	}
	if request.Operation == admissionv1.Update {
		before, err := v.decode.claim(request.OldObject.Raw, request.Kind)
		if err != nil {
			return notJudged(ctx, err)
		}
		// Finalizers come and go as long as a claim lives. What was accepted
		// once stays so, even if a class has changed since.
		if now.deleted || sameLabels(before.labels, now.labels) {
			return admission.Allowed("")
		}
		return answer(ctx, request, v.validateLabels(ctx, now))
	}
	errs := v.validateConfigs(ctx, now)
	errs = append(errs, v.validateClasses(ctx, now)...)
	return answer(ctx, request, append(errs, v.validateLabels(ctx, now)...))
}

// Pods decides about a pod.
func (v *Validator) Pods(ctx context.Context, request admission.Request) admission.Response {
	if request.Operation != admissionv1.Create || request.SubResource != "" {
		return admission.Allowed("")
	}
	pod, err := v.decode.pod(request.Object.Raw)
	if err != nil {
		return notJudged(ctx, err)
	}
	return answer(ctx, request, v.validatePod(ctx, request.Namespace, pod))
}

// answer refuses if there are errors.
func answer(ctx context.Context, request admission.Request, errs field.ErrorList) admission.Response {
	if len(errs) == 0 {
		return admission.Allowed("")
	}
	err := errs.ToAggregate()
	klog.FromContext(ctx).V(2).Info("Refused an object", "kind", request.Kind.Kind, "object", klog.KRef(request.Namespace, request.Name), "why", err.Error())
	kind := schema.GroupKind{Group: request.Kind.Group, Kind: request.Kind.Kind}
	status := apierrors.NewInvalid(kind, request.Name, errs).Status()
	status.Message = err.Error()
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Allowed: false, Result: &status}}
}

// notJudged lets an object pass that cannot be read, such as one of an API
// version that is newer than this program: the API server has accepted it.
func notJudged(ctx context.Context, err error) admission.Response {
	klog.FromContext(ctx).Error(err, "Cannot read an object to validate; it passes")
	return admission.Allowed("").WithWarnings("eks-hybrid-dra did not check this object: " + err.Error())
}

// class returns what the DeviceClass of that name means. Known is false if
// there is none, or none that was heard of yet.
func (v *Validator) class(ctx context.Context, name string) (class classes.Class, known bool) {
	var c resourceapi.DeviceClass
	if err := v.reader.Get(ctx, types.NamespacedName{Name: name}, &c); err != nil {
		v.unknown(ctx, err, "DeviceClass", name)
		return classes.Class{}, false
	}
	return v.classes.Read(&c), true
}

// unknown logs a look-up that failed for another reason than that there is
// nothing.
func (v *Validator) unknown(ctx context.Context, err error, kind, name string) {
	if !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "Cannot look up an object; what depends on it is not validated", "kind", kind, "name", name)
	}
}
