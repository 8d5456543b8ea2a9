package allocation

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

func testClaim(name, version string, change ...func(*resourceapi.ResourceClaim)) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID(name), ResourceVersion: version}}
	for _, f := range change {
		f(c)
	}
	return c
}

func with(devices ...string) func(*resourceapi.ResourceClaim) {
	return func(c *resourceapi.ResourceClaim) {
		c.Status.Allocation = &resourceapi.AllocationResult{}
		for _, device := range devices {
			c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{Driver: "d", Pool: "p", Device: device})
		}
	}
}

// Our own writes and the watch bring news in any order: the newest counts.
func TestTheNewestNewsOfAClaimCount(t *testing.T) {
	s := newClaims()
	gang := func(c *resourceapi.ResourceClaim) { c.Labels = map[string]string{v1alpha1.LabelGang: "g"} }
	key := types.NamespacedName{Namespace: "team", Name: "a"}
	steps := []struct {
		claim *resourceapi.ResourceClaim
		isNew bool
		held  bool
	}{
		{testClaim("a", "10", gang), true, false},
		{testClaim("a", "12", gang, with("gpu-0")), true, true}, // what we wrote
		{testClaim("a", "11", gang), false, true},               // the watch, late
		{testClaim("a", "12", gang, with("gpu-0")), false, true},
		{testClaim("a", "100", gang), true, false}, // freed
	}
	for i, step := range steps {
		if _, isNew := s.set(step.claim); isNew != step.isNew {
			t.Errorf("step %d: new %t, want %t", i, isNew, step.isNew)
		}
		if held := len(s.ofPool("p")) == 1; held != step.held || (s.get(key).Status.Allocation != nil) != step.held {
			t.Errorf("step %d: has devices: %t, want %t", i, held, step.held)
		}
		if members := s.ofGang(types.NamespacedName{Namespace: "team", Name: "g"}); len(members) != 1 {
			t.Errorf("step %d: %d members", i, len(members))
		}
	}
	if s.drop(key, "another") != nil {
		t.Error("another claim of that name was dropped")
	}
	if s.drop(key, "a") == nil || len(s.byName)+len(s.byGang)+len(s.byPool)+len(s.byOwner) > 0 {
		t.Errorf("left: %v", s)
	}
}

func TestThoseThatWaitTryAgainTheOldestFirst(t *testing.T) {
	var mu sync.Mutex
	var tried []string
	again := make(chan string, 10)
	times := clocktesting.NewFakePassiveClock(time.Unix(1000, 0))
	w := newWaiting(times, func(r Request) {
		mu.Lock()
		defer mu.Unlock()
		tried = append(tried, r.Name)
		if len(tried) > 2 {
			again <- r.Name
		}
	})
	request := func(name string) Request {
		return Request{NamespacedName: types.NamespacedName{Name: name}}
	}
	w.changed() // nobody waits
	w.add(request("young"), time.Unix(2, 0))
	w.add(request("old"), time.Unix(1, 0))
	w.add(request("served"), time.Unix(0, 0))
	w.remove(request("served"))
	w.changed()
	mu.Lock()
	if diff := cmp.Diff([]string{"old", "young"}, tried); diff != "" {
		t.Errorf("tried (-want +got):\n%s", diff)
	}
	mu.Unlock()
	w.changed() // many changes at once make one more try
	w.changed()
	for n := 2; n < 4; n++ {
		select {
		case <-again:
		case <-time.After(time.Minute):
			t.Fatal("changes in quick succession were forgotten")
		}
	}
}

func TestANodeIsLeftOutForLongerEachTime(t *testing.T) {
	times := clocktesting.NewFakePassiveClock(time.Unix(1000, 0))
	m := newMemory(times)
	var waits []time.Duration
	for range 9 {
		waits = append(waits, m.leaveOut("a", "dgx-1"))
	}
	var want []time.Duration
	for _, seconds := range []int{10, 20, 40, 80, 160, 320, 600, 600, 600} {
		want = append(want, time.Duration(seconds)*time.Second)
	}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	if out, until := m.leftOut("a"); !out["dgx-1"] || !until.Equal(time.Unix(1600, 0)) {
		t.Errorf("%v until %v", out, until)
	}
	times.SetTime(time.Unix(1600, 0))
	if out, _ := m.leftOut("a"); len(out) > 0 {
		t.Errorf("still left out: %v", out)
	}
}

func TestOnlyOneIsAtAClaim(t *testing.T) {
	m := newMemory(clock.RealClock{})
	if !m.seize("a", "b") || m.seize("b", "c") || !m.seize("c") {
		t.Error("claims are seized by two, or not at all")
	}
	m.release("a", "b")
	m.update("a", func(r *remembered) { r.unsettled = testClaim("a", "1") })
	if m.seize("a") || !m.seize("b") {
		t.Error("a claim of which a write is not settled was seized")
	}
	if !m.once("a", ReasonMixedClasses) || m.once("a", ReasonMixedClasses) || !m.once("a", ReasonInvalidLabel) {
		t.Error("a reason is told once, until there is another one")
	}
}

// Whichever claim is looked at, the same one gives way.
func TestWhoGivesWayWhenADeviceIsGivenTwice(t *testing.T) {
	at := func(seconds int64) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) {
			c.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: time.Unix(seconds, 0)}
		}
	}
	used := func(c *resourceapi.ResourceClaim) {
		c.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "p"}}
	}
	tests := map[string]struct {
		claims []*resourceapi.ResourceClaim
		lose   string
	}{
		"nothing in common":     {claims: []*resourceapi.ResourceClaim{testClaim("a", "1", with("gpu-0"), at(1)), testClaim("b", "1", with("gpu-1"), at(2))}},
		"the later one":         {claims: []*resourceapi.ResourceClaim{testClaim("a", "1", with("gpu-0", "gpu-1"), at(2)), testClaim("b", "1", with("gpu-1"), at(1))}, lose: "a"},
		"the one nobody uses":   {claims: []*resourceapi.ResourceClaim{testClaim("a", "1", with("gpu-0"), at(1)), testClaim("b", "1", with("gpu-0"), at(2), used)}, lose: "a"},
		"the same second":       {claims: []*resourceapi.ResourceClaim{testClaim("a", "1", with("gpu-0"), at(1)), testClaim("b", "1", with("gpu-0"), at(1))}, lose: "b"},
		"another driver's pool": {claims: []*resourceapi.ResourceClaim{testClaim("a", "1", with("gpu-0"), at(1)), testClaim("b", "1", with("gpu-0"), at(1), func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Driver = "other" })}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &Controller{Options: Options{DriverName: "d", Fleet: fleet.New("d")}, claims: newClaims()}
			for _, claim := range test.claims {
				c.claims.set(claim)
			}
			var lost []string
			for _, claim := range test.claims {
				if c.stronger(claim, "p") != nil {
					lost = append(lost, claim.Name)
				}
			}
			if got := strings.Join(lost, " "); got != test.lose {
				t.Errorf("gives way: %q, want %q", got, test.lose)
			}
		})
	}
}

func TestDurationsInLabels(t *testing.T) {
	for value, want := range map[string]time.Duration{"90s": 90 * time.Second, "0s": 0, "-1m": 0, "soon": 0} {
		claim := testClaim("a", "1", func(c *resourceapi.ResourceClaim) { c.Labels = map[string]string{"l": value} })
		got, err := durationLabel(claim, "l", time.Hour)
		if ok := want != 0; (err == nil) != ok || ok && got != want || !ok && got != time.Hour {
			t.Errorf("%q: %v, %v", value, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), value) {
			t.Errorf("%v does not name the value", err)
		}
	}
}
