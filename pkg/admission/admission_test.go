package admission

import (
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

const driver = "eks-hybrid-dra"

func class(name, kind string, managed bool) *resourceapi.DeviceClass {
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", Generation: 1}}
	expression := "device.driver == 'nic.example.com'"
	if kind != "" {
		expression = "device.driver == '" + driver + "' && device.attributes['" + driver + "'].type == '" + kind + "'"
	}
	if managed {
		c.Labels = map[string]string{v1alpha1.LabelManagedClass: "true"}
	}
	c.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}
	return c
}

func claimSpec(classes ...string) resourceapi.ResourceClaimSpec {
	var spec resourceapi.ResourceClaimSpec
	for i, c := range classes {
		spec.Devices.Requests = append(spec.Devices.Requests, resourceapi.DeviceRequest{
			Name: string(rune('a' + i)), Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: c},
		})
	}
	return spec
}

func validator(t testing.TB) *Validator {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := resourceapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{
		class("gpu", "gpu", false), class("vf", "vf", false), class("gpu-vf", "gpu-vf", false), class("nic", "", false),
		class("managed-gpu", "gpu", true), class("managed-vf", "vf", true),
		&resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a-gpu"}, Spec: claimSpec("gpu")},
		&resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a-nic"}, Spec: claimSpec("nic")},
		&resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "vfs"}, Spec: resourceapi.ResourceClaimTemplateSpec{Spec: claimSpec("nic", "vf")}},
	}
	v, err := New(driver, fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// request is that of a user who creates what is in the YAML.
func request(t testing.TB, text string) admission.Request {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &meta); err != nil {
		t.Fatal(err)
	}
	gvk := meta.GroupVersionKind()
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "1", Operation: admissionv1.Create, Namespace: "ns", Name: meta.Name,
		Kind:   metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Object: runtime.RawExtension{Raw: raw},
	}}
}

// check fails unless the answer says what is wanted: nothing allows.
func check(t *testing.T, got admission.Response, want []string) {
	t.Helper()
	if got.Allowed != (len(want) == 0) {
		t.Fatalf("allowed: %v, with %+v; want %q", got.Allowed, got.Result, want)
	}
	if got.Allowed {
		return
	}
	t.Log(got.Result.Message)
	for _, w := range want {
		if !strings.Contains(got.Result.Message, w) {
			t.Errorf("the answer %q does not say %q", got.Result.Message, w)
		}
	}
}

const vlan = `[{requests: [b], opaque: {driver: eks-hybrid-dra, parameters: {apiVersion: resource.eks-hybrid-dra/v1alpha1, kind: VfConfig, vlan: %}}}]`

func TestClaims(t *testing.T) {
	v := validator(t)
	config := func(value string) string { return strings.ReplaceAll(vlan, "%", value) }
	for name, test := range map[string]struct {
		object string
		want   []string
	}{
		"plain": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}, {name: b, exactly: {deviceClassName: vf}}], config: ` + config("100") + `}}`},
		"bad value in v1": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: b, exactly: {deviceClassName: vf}}], config: ` + config("5000") + `}}`,
			want: []string{"spec.devices.config[0].opaque.parameters", "vlan", "4094"}},
		"bad value in v1beta2": {object: `
apiVersion: resource.k8s.io/v1beta2
kind: ResourceClaim
spec: {devices: {requests: [{name: b, exactly: {deviceClassName: vf}}], config: ` + config("5000") + `}}`,
			want: []string{"spec.devices.config[0].opaque.parameters", "vlan"}},
		"bad value in v1beta1": {object: `
apiVersion: resource.k8s.io/v1beta1
kind: ResourceClaim
spec: {devices: {requests: [{name: b, deviceClassName: vf}], config: ` + config("5000") + `}}`,
			want: []string{"spec.devices.config[0].opaque.parameters", "vlan"}},
		"bad value in a template": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
spec: {spec: {devices: {requests: [{name: b, exactly: {deviceClassName: vf}}], config: ` + config("5000") + `}}}`,
			want: []string{"spec.spec.devices.config[0].opaque.parameters", "vlan"}},
		"unknown field": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {config: [{opaque: {driver: eks-hybrid-dra, parameters: {apiVersion: resource.eks-hybrid-dra/v1alpha1, kind: GpuConfig, sharing: {}}}}]}}`,
			want: []string{"spec.devices.config[0].opaque.parameters", `unknown field "sharing"`}},
		"another driver's": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {config: [{opaque: {driver: nic.example.com, parameters: {x: y}}}]}}`},
		"for the wrong devices": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: b, exactly: {deviceClassName: gpu}}], config: ` + config("100") + `}}`,
			want: []string{"spec.devices.config[0].requests", "VfConfig", "gpu"}},
		"for a composite": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: b, exactly: {deviceClassName: gpu-vf}}], config: ` + config("100") + `}}`},
		"for a class that is not known": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: b, exactly: {deviceClassName: to-come}}], config: ` + config("100") + `}}`},
		"mixed": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}, {name: b, exactly: {deviceClassName: managed-vf}}]}}`,
			want: []string{"spec.devices.requests[0].exactly.deviceClassName", `"gpu"`, `"managed-vf"`, "two claims"}},
		"mixed with another driver": {object: `
apiVersion: resource.k8s.io/v1beta1
kind: ResourceClaim
spec: {devices: {requests: [{name: a, deviceClassName: managed-gpu}, {name: b, deviceClassName: nic}]}}`,
			want: []string{"spec.devices.requests[1].deviceClassName", `"nic"`}},
		"mixed alternatives": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: a, firstAvailable: [{name: best, deviceClassName: managed-gpu}, {name: other, deviceClassName: gpu}]}]}}`,
			want: []string{"spec.devices.requests[0].firstAvailable[1].deviceClassName"}},
		"all managed": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {labels: {eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "16", eks-hybrid-dra/gang-timeout: 5m, eks-hybrid-dra/unused-after: 1h30m}}
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: managed-gpu}}, {name: b, exactly: {deviceClassName: managed-vf}}]}}`},
		"odd object": {object: `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
spec: {devices: {requests: [{name: a}], config: [{}, {opaque: {driver: eks-hybrid-dra}}]}}`,
			want: []string{"spec.devices.config[1].opaque.parameters", "no configuration given"}},
		"a version that is newer than this program": {object: `
apiVersion: resource.k8s.io/v9
kind: ResourceClaim
spec: {devices: {}}`},
	} {
		t.Run(name, func(t *testing.T) { check(t, v.Claims(t.Context(), request(t, test.object)), test.want) })
	}
}

func TestEveryKindIsKnown(t *testing.T) {
	reader := classes.NewReader(driver)
	for _, kind := range device.Kinds() {
		c := class("c-"+string(kind), string(kind), false)
		if got := reader.Read(c).Kind; got != string(kind) {
			t.Errorf("a class of %s is read as one of %s: name the kind in package classes", kind, got)
		}
		takes := 0
		for _, config := range []string{v1alpha1.GpuConfigKind, v1alpha1.VfConfigKind} {
			if configures(config, string(kind)) {
				takes++
			}
		}
		if kind != device.KindGPUVF && takes > 1 {
			t.Errorf("every configuration is let through for %s: say in configures which one it has", kind)
		}
	}
}

func TestLabels(t *testing.T) {
	v := validator(t)
	for name, test := range map[string]struct {
		labels string
		class  string
		want   []string
	}{
		"none":               {},
		"gang":               {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "1"}`},
		"no size":            {labels: `{eks-hybrid-dra/gang: g}`, want: []string{"spec.metadata.labels[eks-hybrid-dra/gang-size]: Required"}},
		"no name":            {labels: `{eks-hybrid-dra/gang: "", eks-hybrid-dra/gang-size: "2"}`, want: []string{"labels[eks-hybrid-dra/gang]: Required"}},
		"size without gang":  {labels: `{eks-hybrid-dra/gang-size: "2"}`, want: []string{"labels[eks-hybrid-dra/gang-size]: Forbidden", "eks-hybrid-dra/gang too"}},
		"no number":          {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: two}`, want: []string{`labels[eks-hybrid-dra/gang-size]: Invalid value: "two"`, "1 or more"}},
		"zero":               {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "0"}`, want: []string{`"0"`}},
		"time without unit":  {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "2", eks-hybrid-dra/gang-timeout: "5"}`, want: []string{`gang-timeout]: Invalid value: "5"`, "5m"}},
		"time, negative":     {labels: `{eks-hybrid-dra/unused-after: "-1m"}`, want: []string{`unused-after]: Invalid value: "-1m"`}},
		"timeout of nothing": {labels: `{eks-hybrid-dra/gang-timeout: "5m"}`, want: []string{`gang-timeout]: Forbidden`}},
		"class not managed":  {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "2"}`, class: "gpu", want: []string{"labels[eks-hybrid-dra/gang]: Forbidden", "managed class"}},
		"another driver's":   {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "2"}`, class: "nic"},
		"class not known":    {labels: `{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "2"}`, class: "to-come"},
		"somebody else's":    {labels: `{app: x}`},
	} {
		t.Run(name, func(t *testing.T) {
			if test.class == "" {
				test.class = "managed-gpu"
			}
			if test.labels == "" {
				test.labels = "{}"
			}
			check(t, v.Claims(t.Context(), request(t, `
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
spec: {metadata: {labels: `+test.labels+`}, spec: {devices: {requests: [{name: a, exactly: {deviceClassName: `+test.class+`}}]}}}`)), test.want)
		})
	}
}

// TestUpdates lets finalizers come and go whatever has become of the classes.
func TestUpdates(t *testing.T) {
	v := validator(t)
	object := func(labels string) string {
		return `{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {labels: ` + labels + `},
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}, {name: b, exactly: {deviceClassName: managed-vf}}]}}}`
	}
	const bad = `{eks-hybrid-dra/gang: g}`
	for name, test := range map[string]struct {
		before, now string
		want        []string
	}{
		"something else":  {object(bad), object(`{eks-hybrid-dra/gang: g, app: x}`), nil},
		"our label":       {object("{}"), object(bad), []string{"metadata.labels[eks-hybrid-dra/gang-size]"}},
		"label taken off": {object(`{eks-hybrid-dra/gang: g, eks-hybrid-dra/gang-size: "2"}`), object(bad), []string{"gang-size"}},
		"being deleted": {object("{}"), `{apiVersion: resource.k8s.io/v1, kind: ResourceClaim,
metadata: {deletionTimestamp: "2026-01-01T00:00:00Z", labels: ` + bad + `}, spec: {}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, test.now)
			r.Operation, r.OldObject = admissionv1.Update, request(t, test.before).Object
			check(t, v.Claims(t.Context(), r), test.want)
		})
	}
}

func TestPods(t *testing.T) {
	v := validator(t)
	uses := corev1.Container{Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "dev", Request: "a"}}}}
	claim := func(name string) []corev1.PodResourceClaim {
		return []corev1.PodResourceClaim{{Name: "dev", ResourceClaimName: &name}}
	}
	template := func(name string) []corev1.PodResourceClaim {
		return []corev1.PodResourceClaim{{Name: "dev", ResourceClaimTemplateName: &name}}
	}
	sidecar := uses
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	refused := []string{"spec.resourceClaims[0]", `"dev"`, "resources.claims", "- name: dev"}
	for name, test := range map[string]struct {
		spec corev1.PodSpec
		want []string
	}{
		"used":                           {corev1.PodSpec{ResourceClaims: claim("a-gpu"), Containers: []corev1.Container{uses}}, nil},
		"used by an init container":      {corev1.PodSpec{ResourceClaims: claim("a-gpu"), InitContainers: []corev1.Container{uses}, Containers: []corev1.Container{{}}}, nil},
		"used by a sidecar":              {corev1.PodSpec{ResourceClaims: claim("a-gpu"), InitContainers: []corev1.Container{sidecar}, Containers: []corev1.Container{{}}}, nil},
		"not used":                       {corev1.PodSpec{ResourceClaims: claim("a-gpu"), Containers: []corev1.Container{{}}}, refused},
		"template not used":              {corev1.PodSpec{ResourceClaims: template("vfs"), Containers: []corev1.Container{{}}}, refused},
		"template used":                  {corev1.PodSpec{ResourceClaims: template("vfs"), Containers: []corev1.Container{uses}}, nil},
		"another driver's":               {corev1.PodSpec{ResourceClaims: claim("a-nic"), Containers: []corev1.Container{{}}}, nil},
		"claim that is not there yet":    {corev1.PodSpec{ResourceClaims: claim("to-come"), Containers: []corev1.Container{{}}}, nil},
		"template that is not there yet": {corev1.PodSpec{ResourceClaims: template("to-come"), Containers: []corev1.Container{{}}}, nil},
		"neither claim nor template":     {corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{{Name: "dev"}}}, nil},
		"no claims":                      {corev1.PodSpec{Containers: []corev1.Container{{}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: test.spec})
			if err != nil {
				t.Fatal(err)
			}
			check(t, v.Pods(t.Context(), request(t, string(raw))), test.want)
		})
	}
}

// FuzzHandlers looks for objects that end the program.
func FuzzHandlers(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","spec":{"devices":{"requests":[{"name":"a","exactly":{"deviceClassName":"gpu"}}],"config":[{"opaque":{"driver":"eks-hybrid-dra","parameters":{"a":1}}}]}}}`), "v1")
	f.Add([]byte(`{"apiVersion":"resource.k8s.io/v1beta1","kind":"ResourceClaim","spec":{"devices":{"requests":[{"name":"a","deviceClassName":"managed-gpu"},{"firstAvailable":[{}]}],"config":[{},{"opaque":{}}]}}}`), "v1beta1")
	f.Add([]byte(`{"apiVersion":"resource.k8s.io/v1beta2","kind":"ResourceClaimTemplate","spec":{"metadata":{"labels":{"eks-hybrid-dra/gang":"a"}},"spec":{"devices":{"constraints":[{}]}}}}`), "v1beta2")
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"resourceClaims":[{"name":"a","resourceClaimName":"a-gpu"}],"containers":[{"resources":{"claims":[null]}}]}}`), "v1")
	f.Add([]byte(`null`), "")
	v := validator(f)
	f.Fuzz(func(t *testing.T, raw []byte, version string) {
		for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete} {
			r := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: operation, Kind: metav1.GroupVersionKind{Group: "resource.k8s.io", Version: version, Kind: "ResourceClaim"},
				Object: runtime.RawExtension{Raw: raw}, OldObject: runtime.RawExtension{Raw: raw},
			}}
			for _, response := range []admission.Response{v.Claims(t.Context(), r), v.Pods(t.Context(), r)} {
				if !response.Allowed && (response.Result == nil || response.Result.Message == "") {
					t.Error("refused without a word")
				}
			}
		}
	})
}
