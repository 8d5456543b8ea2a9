package cniaffinity

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// object returns a DaemonSet, or an Installation, with what JSON says at the
// specification of its pods; "" is no specification at all.
func object(t *testing.T, k kind, podSpec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "default", "resourceVersion": "1"}}}
	o.SetAPIVersion(k.resource.GroupVersion().String())
	o.SetKind(map[string]string{"daemonsets": "DaemonSet", "installations": "Installation"}[k.resource.Resource])
	if k.resource.Resource == "daemonsets" {
		o.SetNamespace("cni")
	}
	if podSpec == "" {
		return o
	}
	content := map[string]any{}
	if err := json.Unmarshal([]byte(podSpec), &content); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedMap(o.Object, content, k.podSpec...); err != nil {
		t.Fatal(err)
	}
	return o
}

func client(objects ...runtime.Object) *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		daemonSets().resource: "DaemonSetList", installations().resource: "InstallationList",
	}, objects...)
}

const linux = `{"nodeSelectorTerms":[{"matchExpressions":[{"key":"os","operator":"In","values":["linux"]}]}]}`

// Whatever there is around the affinity, it is as before in the end.
func TestRestoredToTheLastField(t *testing.T) {
	for name, podSpec := range map[string]string{
		"no pods":           "",
		"no affinity":       `{"hostNetwork":true}`,
		"empty affinity":    `{"affinity":{}}`,
		"empty":             `{"affinity":{"nodeAffinity":{}}}`,
		"another affinity":  `{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[]}}}`,
		"preferred":         `{"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[]}}}`,
		"required":          `{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":` + linux + `}}}`,
		"required, in vain": `{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{},{"matchFields":[{"key":"metadata.name","operator":"In","values":["a"]}]}]}}}}`,
	} {
		for _, k := range []kind{daemonSets(), installations()} {
			t.Run(name+"/"+k.resource.Resource, func(t *testing.T) {
				before := object(t, k, podSpec)
				c := client(before.DeepCopy())
				read := func() *state {
					now, err := c.Tracker().Get(k.resource, before.GetNamespace(), before.GetName())
					if err != nil {
						t.Fatal(err)
					}
					u, ok := now.(*unstructured.Unstructured)
					if !ok {
						t.Fatalf("there is a %T", now)
					}
					s, err := k.read(u)
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				for range 2 {
					first := read()
					change := keep(first, v1alpha1.HybridNodes, nil)
					if change == nil || !change.moves || change.again {
						t.Fatalf("want a first change of the selector, got %+v", change)
					}
					if err := write(t.Context(), c, first, change); err != nil {
						t.Fatal(err)
					}
					if s := read(); !kept(s.required, v1alpha1.HybridNodes) || s.record == nil {
						t.Fatalf("it is not kept: %v", s.object)
					} else if again := keep(s, v1alpha1.HybridNodes, nil); again != nil {
						t.Fatalf("it is changed once more: %+v", again)
					}
					restored, err := Restore(t.Context(), c)
					if err != nil || len(restored) != 1 {
						t.Fatalf("restored %v, %v", restored, err)
					}
					after := read().object
					if len(after.GetAnnotations()) == 0 {
						after.SetAnnotations(nil) // an empty map is none
					}
					if diff := cmp.Diff(before.Object, after.Object); diff != "" {
						t.Fatalf("it is not as before (-before +after):\n%s", diff)
					}
				}
			})
		}
	}
}

func TestKeep(t *testing.T) {
	record := func(side v1alpha1.NodeSide, original, applied string) *saved {
		return &saved{Version: recordVersion, Nodes: side, Original: sel(original), Applied: sel(applied), Present: 3}
	}
	for name, test := range map[string]struct {
		now       string
		labels    string
		record    *saved
		side      v1alpha1.NodeSide
		effective string
		// want is the selector to write, or "as it is".
		want string
		// original is the one in the record after that; "no record" for none.
		original string
		again    bool
	}{
		"new":                      {now: "os In linux", side: "hybrid", want: "os In linux & type In hybrid", original: "os In linux"},
		"there by itself":          {now: "type In hybrid", side: "hybrid", want: "as it is", original: "no record"},
		"there by simple selector": {now: "-", labels: "hybrid", side: "hybrid", want: "as it is", original: "no record"},
		"other simple selector":    {now: "-", labels: "hybrid", side: "cloud", want: "type NotIn hybrid", original: "-"},
		"reverted":                 {now: "os In linux", record: record("hybrid", "os In linux", "os In linux & type In hybrid"), side: "hybrid", want: "os In linux & type In hybrid", original: "os In linux", again: true},
		"reverted to another":      {now: "arch In arm64", record: record("hybrid", "os In linux", "os In linux & type In hybrid"), side: "hybrid", want: "arch In arm64 & type In hybrid", original: "arch In arm64", again: true},
		"reverted in part":         {now: "os In linux & type In hybrid | gpu Exists", record: record("hybrid", "os In linux", "os In linux & type In hybrid"), side: "hybrid", want: "os In linux & type In hybrid | gpu Exists & type In hybrid", original: "os In linux | gpu Exists", again: true},
		"changed around ours":      {now: "arch In arm64 & type In hybrid", record: record("hybrid", "os In linux", "os In linux & type In hybrid"), side: "hybrid", want: "as it is", original: "arch In arm64"},
		"owner does it himself":    {now: "type In hybrid & a Exists | type In hybrid", record: record("hybrid", "-", "a Exists"), side: "hybrid", want: "as it is", original: "-"},
		"other side":               {now: "os In linux & type In hybrid", record: record("hybrid", "os In linux", "os In linux & type In hybrid"), side: "cloud", want: "os In linux & type NotIn hybrid", original: "os In linux"},
		"operator's own":           {now: "-", effective: "type NotIn fargate", side: "hybrid", want: "type NotIn fargate & type In hybrid", original: "-"},
		"operator lags behind":     {now: "-", effective: "type NotIn fargate & type In hybrid", record: record("hybrid", "-", "type NotIn fargate & type In hybrid"), side: "hybrid", want: "type NotIn fargate & type In hybrid", original: "-", again: true},
		"operator's, other side":   {now: "type NotIn fargate & type In hybrid", effective: "type NotIn fargate & type In hybrid", record: record("hybrid", "-", "type NotIn fargate & type In hybrid"), side: "cloud", want: "type NotIn fargate & type NotIn hybrid", original: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &state{kind: daemonSets(), required: sel(test.now), record: test.record, present: 3}
			if s.required != nil {
				s.present = 6
			}
			if test.labels != "" {
				s.nodeSelector = map[string]string{v1alpha1.LabelComputeType: test.labels}
			}
			effective := (*corev1.NodeSelector)(nil)
			if test.effective != "" {
				effective = sel(test.effective)
			}
			c := keep(s, test.side, effective)
			if c == nil {
				c = &change{required: s.required, record: s.record}
			}
			want := sel(test.now)
			if test.want != "as it is" {
				want = sel(test.want)
			}
			if diff := cmp.Diff(want, c.required); diff != "" {
				t.Errorf("selector (-want +got):\n%s", diff)
			}
			if moves := test.want != "as it is"; c.moves != moves || c.again != test.again {
				t.Errorf("moves %t, again %t; want %t, %t", c.moves, c.again, moves, test.again)
			}
			switch {
			case test.original == "no record":
				if c.record != nil {
					t.Errorf("unexpected record %s", c.record)
				}
			case c.record == nil:
				t.Error("no record")
			default:
				if diff := cmp.Diff(sel(test.original), c.record.Original); diff != "" {
					t.Errorf("original (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// An annotation that cannot be understood is left alone, and Restore says so.
func TestUnreadableAnnotation(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2,"nodes":"hybrid","applied":{"nodeSelectorTerms":[]}}`, `{"version":1,"nodes":"moon","applied":{"nodeSelectorTerms":[]}}`} {
		o := object(t, daemonSets(), "{}")
		o.SetAnnotations(map[string]string{Annotation: text})
		c := client(o)
		restored, err := Restore(t.Context(), c)
		if err == nil || len(restored) > 0 || !strings.Contains(err.Error(), "DaemonSet cni/default") || !strings.Contains(err.Error(), "by hand") {
			t.Errorf("annotation %q: %v, %v", text, restored, err)
		}
		for _, action := range c.Actions() {
			if action.GetVerb() == "patch" {
				t.Errorf("annotation %q: %v", text, action)
			}
		}
	}
}

// A record has in it all that Restore needs.
func TestRecordSurvivesItsText(t *testing.T) {
	want := &saved{Version: recordVersion, Nodes: v1alpha1.CloudNodes, Original: sel("os In linux | @a"), Present: 6, Applied: sel("os In linux & type NotIn hybrid | @a & type NotIn hybrid")}
	got, err := parseRecord(map[string]string{Annotation: want.String()})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := parseRecord(nil); got != nil || err != nil {
		t.Errorf("without an annotation: %v, %v", got, err)
	}
}
