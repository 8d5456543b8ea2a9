package gangplan

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

const home = "eks-hybrid-dra"

func plan(gang string, members int) Plan {
	p := Plan{Gang: types.NamespacedName{Namespace: "team", Name: gang}}
	for range members {
		var results []resourceapi.DeviceRequestAllocationResult
		for range 8 {
			results = append(results, resourceapi.DeviceRequestAllocationResult{Request: "gpus", Driver: "eks-hybrid-dra", Pool: "node/eks-hybrid-dra", Device: "gpu-0-vf"})
		}
		p.Members = append(p.Members, Member{Name: "claim", UID: "uid", Node: "node", Allocation: resourceapi.AllocationResult{
			Devices: resourceapi.DeviceAllocationResult{Results: results},
			NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"node"}}},
			}}},
		}})
	}
	return p
}

func TestAPlanIsFoundUntilItIsDeleted(t *testing.T) {
	store := NewStore(fake.NewClientset(), home)
	want := plan("train", 64)
	if err := store.Save(t.Context(), plan("train", 3)); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), want); err != nil {
		t.Fatalf("over an older one: %v", err)
	}
	got, unreadable, err := store.List(t.Context())
	if err != nil || len(unreadable) > 0 {
		t.Fatal(unreadable, err)
	}
	if diff := cmp.Diff([]Plan{want}, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := store.Delete(t.Context(), want.Gang); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, _ := store.List(t.Context()); len(got) != 0 {
		t.Errorf("%d plans are left", len(got))
	}
}

// configMap has what somebody else wrote as the plan of gang team/train.
func configMap(t *testing.T, content string) *corev1.ConfigMap {
	t.Helper()
	object, err := encode(home, plan("train", 1))
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	compressed := gzip.NewWriter(&data)
	if _, err := compressed.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	object.BinaryData[dataKey] = data.Bytes()
	return object
}

func TestAPlanOfALaterRelease(t *testing.T) {
	const content = `{"version": 1, "gang": {"Namespace": "team", "Name": "train"}, "fabric": "b",
		"members": [{"name": "c", "uid": "u", "node": "n", "rank": 3, "allocation": {"devices": {"results": [{"request": "gpus", "driver": "d", "pool": "p", "device": "gpu-0", "slot": 1}]}}}]}`
	plans, unreadable, err := NewStore(fake.NewClientset(configMap(t, content)), home).List(t.Context())
	if err != nil || len(unreadable) > 0 {
		t.Fatal(unreadable, err)
	}
	if len(plans) != 1 || len(plans[0].Members) != 1 || plans[0].Members[0].Allocation.Devices.Results[0].Device != "gpu-0" {
		t.Errorf("plans: %v", plans)
	}
}

func TestAPlanThatCannotBeReadIsTold(t *testing.T) {
	const member = `{"name": "c", "uid": "u", "node": "n", "allocation": {"devices": {"results": [{"request": "gpus", "driver": "d", "pool": "p", "device": "gpu-0"}]}}}`
	head := func(version int) string {
		return fmt.Sprintf(`{"version": %d, "gang": {"Namespace": "team", "Name": "train"}, "members": `, version)
	}
	good := configMap(t, head(1)+"["+member+"]}")
	named := good.DeepCopy()
	named.Name = "another"
	raw := good.DeepCopy()
	raw.BinaryData[dataKey] = []byte("{")
	empty := good.DeepCopy()
	empty.BinaryData = nil
	for name, test := range map[string]struct {
		object *corev1.ConfigMap
		want   string
	}{
		"good":                        {good, ""},
		"of another gang":             {named, "it is of gang team/train"},
		"not compressed":              {raw, "unexpected EOF"},
		"empty":                       {empty, "EOF"},
		"cut off":                     {configMap(t, head(1)+"["+member), "unexpected EOF"},
		"no JSON":                     {configMap(t, "members: []"), "invalid character"},
		"another type":                {configMap(t, head(1)+`"all"}`), "cannot unmarshal string"},
		"a later version":             {configMap(t, head(2)+"["+member+"]}"), "version 2, this controller knows version 1"},
		"no version":                  {configMap(t, `{"gang": {"Namespace": "team", "Name": "train"}}`), "version 0"},
		"no claims":                   {configMap(t, head(1)+"[]}"), "at least one claim"},
		"a claim without devices":     {configMap(t, head(1)+`[`+member+`, {"name": "d", "uid": "u", "node": "n"}]}`), `members[1]: claim "d"`},
		"a claim whose UID is not in": {configMap(t, head(1)+`[`+strings.Replace(member, `"uid": "u", `, "", 1)+`]}`), `UID ""`},
	} {
		t.Run(name, func(t *testing.T) {
			store := NewStore(fake.NewClientset(test.object), home)
			plans, unreadable, err := store.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if len(plans) != 1 {
					t.Errorf("%d plans, unreadable: %v", len(plans), unreadable)
				}
				return
			}
			if len(plans) != 0 || len(unreadable) != 1 {
				t.Fatalf("%d plans and %d unreadable ones", len(plans), len(unreadable))
			}
			if text := unreadable[0].Err.Error(); !strings.Contains(text, dataKey) || !strings.Contains(text, test.want) {
				t.Errorf("%s, want something of the field %s and %q", text, dataKey, test.want)
			}
			if err := store.Discard(t.Context(), unreadable[0]); err != nil {
				t.Error(err)
			}
			if _, unreadable, _ := store.List(t.Context()); len(unreadable) != 0 {
				t.Error("the unreadable plan is left")
			}
		})
	}
}
