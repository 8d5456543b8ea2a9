package driver

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A family that is switched off publishes nothing, and a claim that has one of
// its devices can end.
func TestARetiredFamilyLetsItsClaimsEnd(t *testing.T) {
	n := newNode(t, "gpu-0")
	claim := newClaim("a", []string{"gpu-0"})
	n.createClaim(claim)
	if got := prepare(t, n.start(), claim); got.Err != nil {
		t.Fatal(got.Err)
	}
	inUse, err := FamiliesInUse(t.Context(), filepath.Join(n.dir, "data"))
	if diff := cmp.Diff([]string{"gpu"}, inUse); err != nil || diff != "" {
		t.Fatalf("%v, (-want +got):\n%s", err, diff)
	}

	n.families = []Family{Retired(n.gpus)}
	d := n.start()
	if all := d.inventory.devices(); len(all) > 0 {
		t.Errorf("published: %v", all)
	}
	if got := prepare(t, d, claim); got.Err != nil {
		t.Errorf("kubelet, which was restarted, has the claim prepared again: %v", got.Err)
	}
	if err := unprepare(t, d, claim); err != nil {
		t.Fatal(err)
	}
	if len(n.gpus.ready) > 0 {
		t.Errorf("not released: %v", n.gpus.ready)
	}
	other := newClaim("b", []string{"gpu-0"})
	n.createClaim(other)
	if got := prepare(t, d, other); got.Err == nil {
		t.Error("a new claim got a device of a family that is switched off")
	}
	if inUse, err := FamiliesInUse(t.Context(), filepath.Join(n.dir, "data")); err != nil || len(inUse) > 0 {
		t.Errorf("still in use: %v, %v", inUse, err)
	}
}
