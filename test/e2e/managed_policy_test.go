package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// tolerationCase is a list of tolerations, and whether one of them is for the
// taint of managed devices.
type tolerationCase struct {
	name        string
	tolerations []resourceapi.DeviceToleration
	refused     bool
}

func tolerationCases() []tolerationCase {
	const exists, equal = resourceapi.DeviceTolerationOpExists, resourceapi.DeviceTolerationOpEqual
	const noSchedule, noExecute = resourceapi.DeviceTaintEffectNoSchedule, resourceapi.DeviceTaintEffectNoExecute
	one := func(key string, operator resourceapi.DeviceTolerationOperator, value string, effect resourceapi.DeviceTaintEffect) []resourceapi.DeviceToleration {
		return []resourceapi.DeviceToleration{{Key: key, Operator: operator, Value: value, Effect: effect}}
	}
	var sixteen []resourceapi.DeviceToleration
	for n := range resourceapi.DeviceTolerationsMaxLength {
		sixteen = append(sixteen, one(fmt.Sprintf("example.com/taint-%d", n), exists, "", "")...)
	}
	return []tolerationCase{
		{"none", nil, false},
		{"unhealthy devices", one(v1alpha1.TaintUnhealthy, exists, "", ""), false},
		{"one problem", one(v1alpha1.TaintUnhealthy, equal, "LinkDown", noSchedule), false},
		{"another's key", one("example.com/managed", exists, "", ""), false},
		{"another effect", one(v1alpha1.TaintManaged, exists, "", noExecute), false},
		{"any taint of another effect", one("", exists, "", noExecute), false},
		{"many others", sixteen, false},
		{"key", one(v1alpha1.TaintManaged, exists, "", ""), true},
		{"key and effect", one(v1alpha1.TaintManaged, exists, "", noSchedule), true},
		{"controller", one(v1alpha1.TaintManaged, equal, v1alpha1.ManagedByController, noSchedule), true},
		{"settling", one(v1alpha1.TaintManaged, equal, v1alpha1.ManagedSettling, ""), true},
		{"the operator left out", one(v1alpha1.TaintManaged, "", v1alpha1.ManagedByController, ""), true},
		{"every taint", one("", exists, "", ""), true},
		{"every taint of the effect", one("", exists, "", noSchedule), true},
		{"the last of many", append(slices.Clone(sixteen[1:]), one("", exists, "", "")...), true},
	}
}

// asked returns a claim's spec in all the forms that a request can have, by the
// path of the tolerations that a refusal names.
func asked(tolerations []resourceapi.DeviceToleration) map[string]resourceapi.ResourceClaimSpec {
	exactly := resourceapi.DeviceRequest{Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: harness.DeviceClass, Tolerations: tolerations}}
	either := resourceapi.DeviceRequest{Name: "either", FirstAvailable: []resourceapi.DeviceSubRequest{
		{Name: "plain", DeviceClassName: harness.DeviceClass},
		{Name: "other", DeviceClassName: harness.DeviceClass, Tolerations: tolerations},
	}}
	spec := func(requests ...resourceapi.DeviceRequest) resourceapi.ResourceClaimSpec {
		return resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}}
	}
	plain := resourceapi.DeviceRequest{Name: "plain", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: harness.DeviceClass}}
	return map[string]resourceapi.ResourceClaimSpec{
		`devices.requests["gpu"].exactly.tolerations`:                    spec(plain, exactly),
		`devices.requests["either"].firstAvailable["other"].tolerations`: spec(plain, either),
	}
}

func TestNoClaimMayTolerateTheTaintOfManagedDevices(t *testing.T) {
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	meta := metav1.ObjectMeta{GenerateName: "tolerant-"}
	for _, test := range tolerationCases() {
		t.Run(test.name, func(t *testing.T) {
			for path, spec := range asked(test.tolerations) {
				_, err := cluster.Client.ResourceV1().ResourceClaims(harness.Namespace).Create(t.Context(), &resourceapi.ResourceClaim{ObjectMeta: meta, Spec: spec}, dry)
				wantTolerationRefused(t, err, test.refused, "spec."+path)
				_, err = cluster.Client.ResourceV1().ResourceClaimTemplates(harness.Namespace).Create(t.Context(), &resourceapi.ResourceClaimTemplate{
					ObjectMeta: meta, Spec: resourceapi.ResourceClaimTemplateSpec{Spec: spec},
				}, dry)
				wantTolerationRefused(t, err, test.refused, "spec.spec."+path)
			}
		})
	}
}

func wantTolerationRefused(t *testing.T, err error, refused bool, path string) {
	t.Helper()
	var words []string
	if refused {
		words = []string{path + ":", v1alpha1.TaintManaged, "managed-gpu.eks-hybrid-dra", v1alpha1.TaintUnhealthy}
	}
	wantRefused(t, err, words)
}

// The greatest claim that there can be is looked at within what the API server
// allows an expression.
func TestTheGreatestClaimIsLookedAtForTolerations(t *testing.T) {
	for _, refused := range []bool{false, true} {
		var spec resourceapi.ResourceClaimSpec
		for n := range resourceapi.DeviceRequestsMaxSize {
			request := resourceapi.DeviceRequest{Name: fmt.Sprintf("request-%d", n)}
			for m := range resourceapi.FirstAvailableDeviceRequestMaxSize {
				sub := resourceapi.DeviceSubRequest{Name: fmt.Sprintf("alternative-%d", m), DeviceClassName: harness.DeviceClass}
				for i := range resourceapi.DeviceTolerationsMaxLength {
					sub.Tolerations = append(sub.Tolerations, resourceapi.DeviceToleration{Key: fmt.Sprintf("example.com/taint-%d", i), Operator: resourceapi.DeviceTolerationOpExists})
				}
				request.FirstAvailable = append(request.FirstAvailable, sub)
			}
			spec.Devices.Requests = append(spec.Devices.Requests, request)
		}
		last := spec.Devices.Requests[len(spec.Devices.Requests)-1].FirstAvailable
		if refused {
			last[len(last)-1].Tolerations[len(last[0].Tolerations)-1].Key = ""
		}
		claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{GenerateName: "great-"}, Spec: spec}
		_, err := cluster.Client.ResourceV1().ResourceClaims(harness.Namespace).Create(t.Context(), claim, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		wantTolerationRefused(t, err, refused, `spec.devices.requests["request-31"].firstAvailable["alternative-7"].tolerations`)
	}
}

// Who looks only, takes nothing away.
func TestAnAdminMayTolerateTheTaintOfManagedDevices(t *testing.T) {
	s := newSpace(t, map[string]string{"resource.kubernetes.io/admin-access": "true"})
	spec := asked([]resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists}})[`devices.requests["gpu"].exactly.tolerations`]
	spec.Devices.Requests[1].Exactly.AdminAccess = ptr.To(true)
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "admin"}, Spec: spec}
	if _, err := cluster.Client.ResourceV1().ResourceClaims(s.name).Create(s.ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
}

// Versions of the API that are off by default are converted to the one that the
// policy is written for, also the oldest, whose requests look otherwise.
func TestNoOlderVersionOfTheAPIIsAWayAroundThePolicy(t *testing.T) {
	const versions = "resource.k8s.io/v1beta1=%[1]t,resource.k8s.io/v1beta2=%[1]t"
	needNode(t, cluster.Serve(t.Context(), fmt.Sprintf(versions, true)))
	s := newSpace(t, nil)
	t.Cleanup(func() { needNode(t, cluster.Serve(s.ctx, fmt.Sprintf(versions, false))) })
	served := strings.Fields(must(cluster.Kubectl(s.ctx, "api-versions"))(t))
	for version, convert := range map[string]func(*testing.T, resourceapi.ResourceClaimSpec) any{
		"v1beta1": func(t *testing.T, spec resourceapi.ResourceClaimSpec) any {
			var older resourcev1beta1.ResourceClaimSpec
			for _, r := range spec.Devices.Requests {
				request := resourcev1beta1.DeviceRequest{Name: r.Name}
				if r.Exactly != nil {
					recode(t, r.Exactly, &request) // in that version they are fields of the request
				}
				recode(t, r.FirstAvailable, &request.FirstAvailable)
				older.Devices.Requests = append(older.Devices.Requests, request)
			}
			return older
		},
		"v1beta2": func(t *testing.T, spec resourceapi.ResourceClaimSpec) any {
			var older resourcev1beta2.ResourceClaimSpec
			recode(t, spec, &older)
			return older
		},
	} {
		if !slices.Contains(served, "resource.k8s.io/"+version) {
			t.Errorf("%s is not served", version)
			continue
		}
		for _, test := range tolerationCases() {
			t.Run(version+" "+test.name, func(t *testing.T) {
				for path, spec := range asked(test.tolerations) {
					older := convert(t, spec)
					wantTolerationRefused(t, s.createOlder(version, "ResourceClaim", older), test.refused, "spec."+path)
					wantTolerationRefused(t, s.createOlder(version, "ResourceClaimTemplate", map[string]any{"spec": older}), test.refused, "spec.spec."+path)
				}
			})
		}
	}
}

// createOlder makes an object in a version of the API, without storing it.
func (s *space) createOlder(version, kind string, spec any) error {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": "resource.k8s.io/" + version, "kind": kind, "metadata": map[string]string{"generateName": "tolerant-"}, "spec": spec,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return cluster.Client.ResourceV1().RESTClient().Post().
		AbsPath("/apis/resource.k8s.io", version, "namespaces", s.name, strings.ToLower(kind)+"s").
		Param("dryRun", metav1.DryRunAll).SetHeader("Content-Type", "application/json").
		Body(body).Do(s.ctx).Error()
}

// recode turns a value of one version of the API into another.
func recode(t *testing.T, from, to any) {
	t.Helper()
	data, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// must returns what a call has returned, and fails the test if that is an error.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
