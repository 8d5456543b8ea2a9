package allocation

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// A list that comes piece by piece, as the reflector gathers it, is taken in on
// the way; nothing of it is kept but names, and what is gone since is dropped.
func TestSlicesOfAListAreTakenInOneByOne(t *testing.T) {
	w := newSliceWatch(&Controller{Options: Options{Fleet: fleet.New(fleettest.Driver)}, waiting: newWaiting(clock.RealClock{}, func(Request) {})})
	published := map[string][]*resourceapi.ResourceSlice{}
	for _, node := range []string{"a", "b", "c"} {
		published[node] = fleettest.DGX(node).Slices()
		w.Fleet.SetNode(fleettest.DGX(node).Object(nil))
	}
	known := func() []string {
		var names []string
		for _, node := range slices.Sorted(maps.Keys(published)) {
			if n := w.Fleet.View().Node(node); n != nil && len(n.Pools) > 0 {
				names = append(names, node)
			}
		}
		return names
	}
	list := func(nodes ...string) toolscache.Store {
		store := toolscache.NewStore(toolscache.DeletionHandlingMetaNamespaceKeyFunc, toolscache.WithTransformer(w.Transformer()))
		for _, node := range nodes {
			for _, slice := range published[node] {
				if err := store.Add(slice); err != nil {
					t.Fatal(err)
				}
			}
		}
		return store
	}
	wantKnown := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, known()); diff != "" {
			t.Errorf("nodes with devices %s (-want +got):\n%s", when, diff)
		}
	}
	replace := func(objects []any) {
		t.Helper()
		for _, object := range objects {
			if slice, ok := object.(*resourceapi.ResourceSlice); ok && len(slice.Spec.Devices)+len(slice.Spec.SharedCounters) > 0 {
				t.Errorf("the list keeps all of slice %s", slice.Name)
			}
		}
		if err := w.Replace(objects, ""); err != nil {
			t.Fatal(err)
		}
	}

	first := list("a", "b")
	wantKnown("before the list is complete", "a", "b")
	if w.synced() {
		t.Error("synced before the list is complete")
	}
	for _, slice := range published["b"] { // deleted meanwhile
		if err := first.Delete(slice); err != nil {
			t.Fatal(err)
		}
	}
	replace(first.List())
	wantKnown("after the first list", "a")
	if !w.synced() {
		t.Error("not synced after the first list")
	}
	// The watch broke, and a was deleted.
	replace(list("c").List())
	wantKnown("after the second list", "c")
	// Servers that cannot stream a list send it whole.
	var whole []any
	for _, slice := range published["a"] {
		whole = append(whole, slice)
	}
	if err := w.Replace(whole, ""); err != nil {
		t.Fatal(err)
	}
	wantKnown("after a list in one piece", "a")
}
