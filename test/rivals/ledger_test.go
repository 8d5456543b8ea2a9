package rivals

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// partsOf knows of pairs that they take the GPU of the same number.
func partsOf(device string) []string {
	if number, ok := strings.CutPrefix(device, "pair-"); ok {
		return []string{device, "gpu-" + number}
	}
	return []string{device}
}

func given(uid, name, pool string, devices ...string) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
	if len(devices) > 0 {
		claim.Status.Allocation = &resourceapi.AllocationResult{}
	}
	for _, device := range devices {
		claim.Status.Allocation.Devices.Results = append(claim.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{Pool: pool, Device: device})
	}
	return claim
}

func TestWhatIsGivenTwice(t *testing.T) {
	a, again := given("1", "managed-a", "n0", "gpu-0", "gpu-1"), given("1", "managed-a", "n0")
	for name, test := range map[string]struct {
		claims []*resourceapi.ResourceClaim
		want   []string
	}{
		"others":             {[]*resourceapi.ResourceClaim{a, given("2", "plain-b", "n0", "gpu-2"), given("3", "plain-c", "n1", "gpu-0")}, nil},
		"the same claim":     {[]*resourceapi.ResourceClaim{a, a}, nil},
		"freed before":       {[]*resourceapi.ResourceClaim{a, again, given("2", "plain-b", "n0", "gpu-1")}, nil},
		"the same device":    {[]*resourceapi.ResourceClaim{a, given("2", "plain-b", "n0", "gpu-1")}, []string{"n0/gpu-1: given to claim plain-b while claim managed-a had gpu-1"}},
		"a part of a device": {[]*resourceapi.ResourceClaim{a, given("2", "plain-b", "n0", "pair-1")}, []string{"n0/pair-1: given to claim plain-b while claim managed-a had gpu-1"}},
		"once for all parts": {[]*resourceapi.ResourceClaim{given("1", "plain-a", "n0", "pair-1"), given("2", "plain-b", "n0", "pair-1")}, []string{"n0/pair-1: given to claim plain-b while claim plain-a had pair-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(partsOf)
			for _, claim := range test.claims {
				l.set(claim)
			}
			result, err := l.result()
			if diff := cmp.Diff(test.want, result.Twice); diff != "" || err != nil {
				t.Errorf("%v; given twice (-want +got):\n%s", err, diff)
			}
		})
	}
}

// at is a claim as it is at a resource version.
func at(version string, claim *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	claim.ResourceVersion = version
	return claim
}

func TestTheLedgerFollowsAWatch(t *testing.T) {
	client, events := fake.NewClientset(), apiwatch.NewFake()
	client.PrependWatchReactor("resourceclaims", clienttesting.DefaultWatchReactor(events, nil))
	l, err := watch(t.Context(), client, "race", partsOf)
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	first, second := l.await("managed-a"), l.await("plain-b")
	events.Add(at("11", given("1", "managed-a", "n0")))
	events.Modify(at("12", given("1", "managed-a", "n0", "gpu-0")))
	<-first
	events.Delete(at("13", given("1", "managed-a", "n0", "gpu-0")))
	events.Add(at("14", given("2", "plain-b", "n0", "gpu-0")))
	<-second
	result, err := l.result()
	if diff := cmp.Diff(Result{ByController: 1, ByScheduler: 1}, result); diff != "" || err != nil {
		t.Errorf("%v; result (-want +got):\n%s", err, diff)
	}
	// What it did not see it does not vouch for.
	expired := apierrors.NewResourceExpired("too old").Status()
	events.Error(&expired)
	<-l.ended
	if _, err := l.result(); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch that has ended: %v", err)
	}
}
