package fit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

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
	if got := w.gangOf(Ask{Claims: members(3, gpus(8))}); len(got) != 1 || !strings.Contains(got[0], "3 claims need devices at the same time, and 3 nodes of 3") {
		t.Error(got)
	}
	for name, tc := range map[string]struct {
		claims []*resourceapi.ResourceClaim
		want   []string
	}{
		"each on one NUMA node": {members(4, gpus(3)), []string{
			"a: gpu-1 gpu-2 gpu-3", "a: gpu-4 gpu-5 gpu-6", "b: gpu-0 gpu-1 gpu-2", "b: gpu-4 gpu-5 gpu-6",
		}},
		"small ones together on one NUMA node": {members(4, gpus(1)), []string{"a: gpu-4", "a: gpu-5", "a: gpu-6", "a: gpu-7"}},
		"what differs": {different(members(1, gpus(8)), members(2, gpus(4)), members(3, gpus(2))), []string{
			"a: gpu-1 gpu-2", "a: gpu-4 gpu-5", "a: gpu-6 gpu-7",
			"b: gpu-0 gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7", "c: gpu-0 gpu-1 gpu-2 gpu-3", "c: gpu-4 gpu-5 gpu-6 gpu-7",
		}},
		"composites": {members(2, fleettest.Request("r", fleettest.ClassGPUVF, 3)), []string{"a: gpu-1-vf gpu-2-vf gpu-3-vf", "a: gpu-4-vf gpu-5-vf gpu-6-vf"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"))
			w.use("a", "gpu-0")
			if got := w.gangOf(Ask{Claims: tc.claims}); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// different makes one gang of members that ask for different things.
func different(some ...[]*resourceapi.ResourceClaim) []*resourceapi.ResourceClaim {
	all := slices.Concat(some...)
	for i, c := range all {
		c.Name = fmt.Sprint("member-", i)
		c.UID = fleettest.Claim(c.Name).UID
	}
	return all
}

func TestGangWithinOneValueOfALabel(t *testing.T) {
	w := newWorld(t)
	for i, site := range []string{"x", "y", "x", "y", "", "z"} {
		m := fleettest.DGX(fmt.Sprintf("dgx-%d", i))
		labels := map[string]string{"site": site}
		if site == "" {
			labels = nil
		}
		w.add(m, labels)
	}
	w.use("dgx-0", "gpu-0")
	ask := Ask{Claims: members(2, gpus(8)), TopologyLabel: "site"}
	if got := w.nodesOf(ask); !slices.Equal(got, []string{"dgx-1", "dgx-3"}) {
		t.Errorf("not on the two of site y: %v", got)
	}
	ask.Claims = members(3, gpus(8))
	if got := w.gangOf(ask); len(got) != 1 || !strings.Contains(got[0], "that have the same value of the label site") {
		t.Errorf("three sites have no three whole machines: %v", got)
	}
	ask.TopologyLabel = ""
	if got := w.nodesOf(ask); !slices.Equal(got, []string{"dgx-1", "dgx-2", "dgx-3"}) {
		t.Error(got)
	}
	// A site with less to spare is used first.
	if got := w.nodesOf(Ask{Claims: members(2, gpus(2)), TopologyLabel: "site"}); !slices.Equal(got, []string{"dgx-0"}) {
		t.Error(got)
	}
}

// TestGangOfPods has pods with a claim for GPUs and one for a VF each.
func TestGangOfPods(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"))
	w.use("b", slices.Concat([]string{"gpu-7"}, someVFs(0, 8, 8))...)
	claims := different(members(4, gpus(4)), members(4, vfs(1)))
	ask := Ask{Claims: claims}
	for i := range 4 {
		ask.Groups = append(ask.Groups, []*resourceapi.ResourceClaim{claims[i], claims[4+i]})
	}
	choices, err := w.Gang(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range choices {
		if c.Claim != claims[i].UID || c.Node != choices[(i+4)%8].Node || c.Node == "b" {
			t.Errorf("claim %d is on node %s, the other of its pod on %s", i, c.Node, choices[(i+4)%8].Node)
		}
		if err := w.Assume(c.Claim, &c.Allocation); err != nil {
			t.Error(err)
		}
	}
}

// TestMembersMakeWay has members that may be on few nodes only, where whoever
// comes first could take the place of another.
func TestMembersMakeWay(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"), fleettest.DGX("d"))
	on := func(names ...string) func(*corev1.Node) bool {
		return func(n *corev1.Node) bool { return slices.Contains(names, n.Name) }
	}
	claims := members(4, gpus(8))
	ask := Ask{Claims: claims, NodesOf: map[types.UID]func(*corev1.Node) bool{
		claims[0].UID: on("a", "b"), claims[1].UID: on("b", "c"), claims[2].UID: on("c", "a", "d"), claims[3].UID: on("a", "c"),
	}}
	if got := w.gangOf(ask); len(got) != 4 {
		t.Error(got)
	}
	ask.NodesOf[claims[2].UID] = on("c", "a")
	if got := w.gangOf(ask); len(got) != 1 {
		t.Errorf("four members of three nodes: %v", got)
	}
}

func TestGangAvoidsNodes(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"))
	cordoned := fleettest.DGX("b").Object(nil)
	cordoned.Spec.Unschedulable = true
	w.SetNode(cordoned)
	avoid := func(n *corev1.Node) bool { return n.Name == "a" }
	for n, want := range map[int][]string{1: {"c"}, 2: {"b", "c"}, 3: {"a", "b", "c"}} {
		if got := w.nodesOf(Ask{Claims: members(n, gpus(8)), Avoid: avoid}); !slices.Equal(got, want) {
			t.Errorf("%d members: %v", n, got)
		}
	}
}
