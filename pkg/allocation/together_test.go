package allocation

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// pod makes a pod that uses the claims.
func (s *stand) pod(name string, claims ...string) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	for _, claim := range claims {
		pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: ptr.To(claim)})
	}
	s.feed.pod(pod)
}

func vfs(name string, count int64) *resourceapi.ResourceClaim {
	claim := gpus(name, 1, nil)
	claim.Spec.Devices.Requests = []resourceapi.DeviceRequest{fleettest.Request("r", fleettest.ClassVF, count)}
	return claim
}

// nodes returns where the claims are allocated.
func (s *stand) nodes() map[string]string {
	nodes := map[string]string{}
	for _, claim := range s.claims.all() {
		if claim.Status.Allocation != nil {
			nodes[claim.Name] = nodeOf(claim.Status.Allocation)
		}
	}
	return nodes
}

// Two pods have each a claim of the gang and one that is of none. Whatever comes
// first, each pod gets all of its claims on one node.
func TestClaimsThatAreOfNoGangGoWithTheGangOfTheirPod(t *testing.T) {
	gang := func(s *stand) {
		s.make(gpus("train-0", 8, inGang("2")))
		s.make(gpus("train-1", 8, inGang("2")))
	}
	plain := func(s *stand) {
		s.make(vfs("own-0", 8))
		s.make(vfs("own-1", 8))
	}
	users := func(s *stand) {
		s.pod("p-0", "train-0", "own-0")
		s.pod("p-1", "train-1", "own-1")
	}
	tests := map[string][]func(*stand){
		"the pods first":               {users, plain, gang},
		"the gang last":                {plain, users, gang},
		"the gang before all the rest": {gang, users, plain},
		"no steps between":             {func(s *stand) { users(s); plain(s); gang(s) }},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			// The first two machines have room for a pod each. The others have what a
			// single claim likes best: they are broken into already.
			s := newStand(t, fleettest.DGX("whole-0"), fleettest.DGX("whole-1"))
			vfsOnly := fleettest.DGX("a-broken")
			s.Fleet.SetNode(vfsOnly.Object(nil))
			for _, slice := range vfsOnly.Slices() {
				s.Fleet.SetSlice(slice)
			}
			s.make(fleettest.Allocated(gpus("before", 1, nil), vfsOnly, "gpu-0"))
			for _, step := range steps {
				step(s)
				s.run()
			}
			got := s.nodes()
			delete(got, "before")
			if len(got) != 4 || got["train-0"] != got["own-0"] || got["train-1"] != got["own-1"] {
				t.Errorf("allocated: %v", got)
			}
		})
	}
}

// While a gang is not complete, the other claims of its pods hold nothing, and
// they do not hold up what has no gang.
func TestClaimsBesideAGangThatWaitsHoldNothing(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.make(vfs("own-0", 1))
	s.make(vfs("other", 1))
	s.run()
	s.make(gpus("train-0", 8, inGang("2")))
	s.pod("p-0", "train-0", "own-0")
	s.pod("q", "other", "another")
	s.make(vfs("another", 1))
	s.run()
	if diff := cmp.Diff(map[string]bool{"other": true, "another": true}, s.allocated()); diff != "" {
		t.Errorf("allocated (-want +got):\n%s", diff)
	}
	// The test's claims are old: the gang has timed out, and both know why they wait.
	if told := s.told(); strings.Count(told, "GangTimedOut") != 2 || !strings.Contains(told, "it has 1 of its 2 claims") {
		t.Errorf("events: %s", told)
	}
}

// A claim finds no room beside the one of a gang that nobody uses yet: both move.
func TestAGangMovesForTheOtherClaimsOfItsPods(t *testing.T) {
	full := fleettest.DGX("a-full")
	s := newStand(t, full, fleettest.DGX("b"))
	var vf []string
	for gpu := range full.GPUs {
		for i := range full.VFs {
			vf = append(vf, fmt.Sprintf("vf-%d-%d", gpu, i))
		}
	}
	s.make(fleettest.Allocated(gpus("others", 1, nil), full, vf...))
	s.make(gpus("train-0", 4, inGang("1")))
	s.run()
	if got := s.nodes()["train-0"]; got != "a-full" {
		t.Fatalf("the gang is on %q: not what this test is for", got)
	}
	s.pod("p-0", "train-0", "own-0")
	s.make(vfs("own-0", 1))
	s.run()
	if got := s.nodes(); got["train-0"] != "b" || got["own-0"] != "b" {
		t.Errorf("allocated: %v", got)
	}
}
