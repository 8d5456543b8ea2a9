package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// create creates an object and deletes it after the test.
func (b *webhookBed) create(t *testing.T, object client.Object) {
	t.Helper()
	if err := b.admin.Create(t.Context(), object); err != nil {
		t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
	t.Cleanup(func() {
		if err := b.admin.Delete(context.Background(), object); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

func (b *webhookBed) class(name, kind string, managed bool) *resourceapi.DeviceClass {
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: b.prefix + "-" + name}}
	if managed {
		c.Labels = map[string]string{"eks-hybrid-dra/managed": "true"}
	}
	c.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
		Expression: fmt.Sprintf("device.driver == '%s' && device.attributes['%s'].type == '%s'", b.prefix, b.prefix, kind),
	}}}
	return c
}

// claim is a claim of one class in a version of the API, with the fields of a
// VfConfig.
func (b *webhookBed) claim(t *testing.T, version string, class string, config string) *unstructured.Unstructured {
	t.Helper()
	request := `{name: r, exactly: {deviceClassName: %s}}`
	if version == "v1beta1" {
		request = `{name: r, deviceClassName: %s}`
	}
	text := fmt.Sprintf("apiVersion: resource.k8s.io/%s\nkind: ResourceClaim\nmetadata: {namespace: %s, generateName: c-}\nspec: {devices: {requests: ["+request+"]", version, b.users, b.prefix+"-"+class)
	if config != "" {
		text += ", config: [{opaque: {driver: " + b.prefix + ", parameters: {apiVersion: resource.eks-hybrid-dra/v1alpha1, kind: VfConfig, " + strings.Trim(config, "{}") + "}}}]"
	}
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text+"}}"), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// templateOf is a template of such claims, in the claim's namespace.
func templateOf(claim *unstructured.Unstructured) *unstructured.Unstructured {
	inner := map[string]any{"spec": claim.Object["spec"]}
	if labels := claim.GetLabels(); labels != nil {
		of := map[string]any{}
		for key, value := range labels {
			of[key] = value
		}
		inner["metadata"] = map[string]any{"labels": of}
	}
	template := &unstructured.Unstructured{Object: map[string]any{"spec": inner}}
	template.SetAPIVersion(claim.GetAPIVersion())
	template.SetKind("ResourceClaimTemplate")
	template.SetNamespace(claim.GetNamespace())
	template.SetGenerateName("t-")
	return template
}

func (b *webhookBed) tryClaim(t *testing.T, version, class, config string) error {
	t.Helper()
	return b.admin.Create(t.Context(), b.claim(t, version, class, config))
}

func (b *webhookBed) deleteClaims(t *testing.T) {
	t.Helper()
	if err := b.admin.DeleteAllOf(t.Context(), &resourceapi.ResourceClaim{}, client.InNamespace(b.users)); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return condition(), nil }); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// refuses sees what is accepted and refused in a version of the API, where object
// makes of a claim what is created, in which the claim is at a path.
func (b *webhookBed) refuses(t *testing.T, version, path string, object func(*unstructured.Unstructured) *unstructured.Unstructured) {
	t.Helper()
	try := func(claim *unstructured.Unstructured) error { return b.admin.Create(t.Context(), object(claim)) }
	if err := try(b.claim(t, version, "vf", `{vlan: 100}`)); err != nil {
		t.Errorf("a good configuration is refused: %v", err)
	}
	refused(t, try(b.claim(t, version, "vf", `{vlan: 5000}`)), path+"spec.devices.config[0].opaque.parameters", "vlan", "4094")
	refused(t, try(b.claim(t, version, "vf", `{vlann: 5}`)), `unknown field "vlann"`)

	mixed := b.claim(t, version, "managed-gpu", "")
	other := b.claim(t, version, "gpu", "")
	requests, _, err := unstructured.NestedSlice(mixed.Object, "spec", "devices", "requests")
	second, _, err2 := unstructured.NestedSlice(other.Object, "spec", "devices", "requests")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if r, ok := second[0].(map[string]any); ok {
		r["name"] = "second"
	}
	if err := unstructured.SetNestedSlice(mixed.Object, append(requests, second...), "spec", "devices", "requests"); err != nil {
		t.Fatal(err)
	}
	class := path + "spec.devices.requests[1].exactly.deviceClassName"
	if version == "v1beta1" {
		class = path + "spec.devices.requests[1].deviceClassName"
	}
	refused(t, try(mixed), class, "managed class")

	gang := b.claim(t, version, "managed-gpu", "")
	gang.SetLabels(map[string]string{"eks-hybrid-dra/gang": "train", "eks-hybrid-dra/gang-size": "two"})
	refused(t, try(gang), path+"metadata.labels[eks-hybrid-dra/gang-size]", "1 or more")
}

// refused fails unless the webhook has refused something and says why.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Error("accepted")
		return
	}
	t.Log(err)
	for _, w := range append(want, "admission.eks-hybrid-dra") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the answer does not say %q: %v", w, err)
		}
	}
}
