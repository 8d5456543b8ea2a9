package fit

import (
	"fmt"
	"runtime"
	"testing"
	"weak"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// Each device whose health changes makes a machine a new shape. What was found out
// about the old one must not keep it for ever: it is large.
func TestShapesOfThePastAreNotKept(t *testing.T) {
	w := newWorld(t, fleettest.DGX("dgx-0"))
	claim := fleettest.Claim("x", gpus(1))
	var old []weak.Pointer[fleet.Shape]
	before := fleettest.DGX("dgx-0")
	for i := range 2 * maxBoards {
		if _, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{claim}}); err != nil {
			t.Fatal(err)
		}
		old = append(old, weak.Make(w.View().Node("dgx-0").Pools[0].Shape))
		next := fleettest.DGX("dgx-0")
		next.Generation = int64(i + 2)
		for bit := range 16 {
			if (i+1)>>bit&1 == 1 {
				next.Sick = append(next.Sick, fmt.Sprintf("vf-%d-%d", bit%8, bit/8))
			}
		}
		for _, slice := range next.Slices() {
			w.SetSlice(slice)
		}
		for _, slice := range before.Slices() {
			w.DeleteSlice(slice.Name)
		}
		before = next
	}
	runtime.GC()
	kept := 0
	for _, shape := range old {
		if shape.Value() != nil {
			kept++
		}
	}
	runtime.KeepAlive(w)
	if kept > maxBoards {
		t.Errorf("%d of %d shapes are kept that no machine has any more", kept, len(old))
	}
}
