package published

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func counters(n string, names ...string) map[string]resourceapi.Counter {
	all := map[string]resourceapi.Counter{}
	for _, name := range names {
		all[name] = resourceapi.Counter{Value: resource.MustParse(n)}
	}
	return all
}

func uses(n string, names ...string) []resourceapi.DeviceCounterConsumption {
	return []resourceapi.DeviceCounterConsumption{{CounterSet: "set", Counters: counters(n, names...)}}
}

func TestPartsThatTwoDevicesCannotShare(t *testing.T) {
	m := &Machine{Slices: []*resourceapi.ResourceSlice{
		{Spec: resourceapi.ResourceSliceSpec{SharedCounters: []resourceapi.CounterSet{{Name: "set", Counters: counters("2", "gpu", "vf")}}}},
		{Spec: resourceapi.ResourceSliceSpec{Devices: []resourceapi.Device{
			{Name: "gpu", ConsumesCounters: uses("2", "gpu")},
			{Name: "pair", ConsumesCounters: uses("2", "gpu", "vf")},
			{Name: "half", ConsumesCounters: uses("1", "gpu")},
			{Name: "free"},
		}}},
	}}
	for device, want := range map[string][]string{
		"gpu": {"gpu", "set/gpu"}, "pair": {"pair", "set/gpu", "set/vf"}, "half": {"half"}, "free": {"free"},
	} {
		got := m.Parts(device)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parts of %s (-want +got):\n%s", device, diff)
		}
	}
}

func TestNodesWithHeartsAreReadyAndTheirLeasesAreRenewed(t *testing.T) {
	client := fake.NewClientset()
	hearts := NewHearts(t.Context(), client)
	slicesOf := func(node string) []*resourceapi.ResourceSlice {
		return []*resourceapi.ResourceSlice{{ObjectMeta: metav1.ObjectMeta{Name: "slice-" + node}}}
	}
	if err := Add(t.Context(), client, []string{"lives"}, slicesOf, hearts); err != nil {
		t.Fatal(err)
	}
	if err := Add(t.Context(), client, []string{"lifeless"}, slicesOf, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]corev1.ConditionStatus{"lives": corev1.ConditionTrue, "lifeless": corev1.ConditionUnknown} {
		node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := node.Status.Conditions[0]; got.Type != corev1.NodeReady || got.Status != want || (len(node.Spec.Taints) == 0) != (want == corev1.ConditionTrue) {
			t.Errorf("node %s has the condition %v and the taints %v", name, got, node.Spec.Taints)
		}
		if _, err := client.ResourceV1().ResourceSlices().Get(t.Context(), "slice-"+name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	renewed := func() time.Time {
		t.Helper()
		lease, err := leases.Get(t.Context(), "lives", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return lease.Spec.RenewTime.Time
	}
	before := renewed()
	if err := hearts.renew(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if !renewed().After(before) {
		t.Error("the lease was not renewed")
	}
	if err := hearts.Stop(); err != nil {
		t.Error(err)
	}
}
