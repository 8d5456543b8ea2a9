package fit

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// members are claims that ask for the same.
func members(n int, requests ...resourceapi.DeviceRequest) []*resourceapi.ResourceClaim {
	var all []*resourceapi.ResourceClaim
	for i := range n {
		all = append(all, fleettest.Claim(fmt.Sprintf("member-%d", i), requests...))
	}
	return all
}

// gangOf places a gang and returns what each node gives, checked.
func (w *world) gangOf(ask Ask) []string {
	w.Helper()
	choices, err := w.Gang(w.Context(), ask)
	if err != nil {
		if !errors.Is(err, ErrNoFit) {
			w.Error(err)
		}
		return []string{err.Error()}
	}
	var all []string
	for i, c := range choices {
		if c.Claim != ask.Claims[i].UID {
			w.Errorf("choice %d is for %s", i, c.Claim)
		}
		if err := w.Assume(c.Claim, &c.Allocation); err != nil {
			w.Error(err)
		}
		all = append(all, w.text(c))
	}
	for _, c := range choices {
		w.Forget(c.Claim)
	}
	slices.Sort(all)
	return all
}

func (w *world) nodesOf(ask Ask) []string {
	choices, err := w.Gang(w.Context(), ask)
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, c := range choices {
		all = append(all, c.Node)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestGang(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"))
	w.use("a", "gpu-0")
	for _, tc := range []struct {
		n    int
		gpus int64
		want []string
	}{
		{2, 8, []string{"b", "c"}},
		{3, 4, []string{"a", "b"}},
		{3, 2, []string{"a"}},
		{5, 4, []string{"a", "b", "c"}},
		{7, 1, []string{"a"}},
	} {
		if got := w.nodesOf(Ask{Claims: members(tc.n, gpus(tc.gpus))}); !slices.Equal(got, tc.want) {
			t.Errorf("%d × %d: %v", tc.n, tc.gpus, got)
		}
	}
	t.Log(w.gangOf(Ask{Claims: members(3, gpus(8))}))
	t.Log(w.gangOf(Ask{Claims: members(4, gpus(3))}))
	mixed := slices.Concat(members(1, gpus(8)), members(2, gpus(4)), members(3, gpus(2)))
	for i, c := range mixed {
		c.UID += fleettest.Claim(fmt.Sprint(i)).UID
	}
	t.Log(w.gangOf(Ask{Claims: mixed}))
	_ = corev1.Node{}
}
