package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

func TestAGangOf16ClaimsOver8Nodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8)
	s.start(settings{})
	s.gang("train", 16, 0, 16, 4)
	s.allAllocated(16)
	s.eventually("no plan is left", func() (bool, string) { return s.plans() == 0, "" })
	s.event("train-0", "Allocated", "16 claims of gang train")
}

func TestAGangThatLacksOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8)
	s.start(settings{})
	s.gang("train", 16, 0, 15, 4)
	s.pod("p", nil, "train-3")
	s.event("train-0", "GangTimedOut", "it has 15 of its 16 claims")
	condition := func() (corev1.PodCondition, string) {
		pod, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, "p", metav1.GetOptions{})
		if err != nil {
			return corev1.PodCondition{}, err.Error()
		}
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == "eks-hybrid-dra/GangAllocated" })
		if i < 0 {
			return corev1.PodCondition{}, fmt.Sprint(pod.Status.Conditions)
		}
		return pod.Status.Conditions[i], ""
	}
	s.eventually("the pod says that its gang waits", func() (bool, string) {
		got, what := condition()
		return got.Status == corev1.ConditionFalse && got.Reason == "TimedOut" && strings.Contains(got.Message, "15 of its 16"), what
	})
	// Others can have what the gang does not hold.
	for i := range 8 {
		s.claim(fmt.Sprint("other-", i), 8, nil)
	}
	s.allAllocated(8)
	s.gang("train", 16, 15, 16, 4)
	for i := range 8 {
		if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, fmt.Sprint("other-", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.allAllocated(16)
	s.eventually("the pod says that its gang is allocated", func() (bool, string) {
		got, what := condition()
		return got.Status == corev1.ConditionTrue, what
	})
	s.bound("p")
}

// Two gangs of which only one fits: one gets all, the other nothing, and then
// everything.
func TestTwoGangsCompete(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	s.start(settings{})
	for i := range 6 { // one claim of each at a time
		s.gang("one", 6, i, i+1, 4)
		s.gang("two", 6, i, i+1, 4)
	}
	s.eventually("one gang is allocated", func() (bool, string) {
		names := s.withDevices()
		return len(names) == 6, fmt.Sprint(names)
	})
	won := strings.Split(s.withDevices()[0], "-")[0]
	lost := map[string]string{"one": "two", "two": "one"}[won]
	s.event(lost+"-0", "GangTimedOut", "find no place together")
	for _, name := range s.withDevices() {
		if !strings.HasPrefix(name, won) {
			t.Errorf("claim %s of the gang that lost has devices", name)
		}
	}
	for i := range 6 {
		if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, fmt.Sprint(won, "-", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.eventually("the other gang is allocated", func() (bool, string) {
		names := s.withDevices()
		return len(names) == 6 && !slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, lost) }), fmt.Sprint(names)
	})
	s.noneTwice()
}

func TestAGangStaysWithinOneValueOfALabel(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5) // a b a b a
	s.start(settings{topology: "half"})
	s.gang("train", 3, 0, 3, 8)
	s.allAllocated(3)
	for _, claim := range s.list() {
		if at := slices.Index(s.nodes, nodeOf(&claim)); at%2 != 0 {
			t.Errorf("claim %s is on %s, which is not in half a", claim.Name, nodeOf(&claim))
		}
	}
	s.gang("wide", 3, 0, 3, 8)
	s.event("wide-0", "GangTimedOut", "find no place together")
}

// A pod of a gang that runs ends, and whoever owns it makes another one with
// another claim. There is room on the other half, too.
func TestAMemberThatIsReplacedStaysAtTheSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5) // three of one half, two of the other
	s.start(settings{topology: "half"})
	s.gang("train", 3, 0, 3, 8)
	s.allAllocated(3)
	for i := range 3 {
		s.pod(fmt.Sprint("p-", i), nil, fmt.Sprint("train-", i))
		s.bound(fmt.Sprint("p-", i))
	}
	lost := s.bound("p-1")
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := cluster.Client.CoreV1().Nodes().Patch(s.ctx, lost, types.StrategicMergePatchType, cordon, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	s.deletePod("p-1")
	s.deleteClaim("train-1")
	s.gang("train", 3, 1, 2, 8)
	s.pod("p-1", nil, "train-1")
	s.event("train-1", "GangTimedOut", "find no place together")
	if claim := s.get("train-1"); claim.Status.Allocation != nil {
		t.Errorf("the new claim is on %s, at another site than the others", nodeOf(claim))
	}
	var spare string
	for range 2 { // one of each half
		name := fmt.Sprintf("%s-%02d", s.name, len(s.nodes))
		s.nodes = append(s.nodes, name)
		s.node(name)
		s.publish(name, managed, 1)
		if len(s.nodes)%2 == 1 {
			spare = name
		}
	}
	if got := nodeOf(s.allocated("train-1")); got != spare {
		t.Errorf("the new claim is on %s, want %s", got, spare)
	}
	if got := s.bound("p-1"); got != spare {
		t.Errorf("the new pod is on %s, want %s", got, spare)
	}
	s.noneTwice()
}

func TestAGangThatLosesAMemberGivesAllBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.start(settings{})
	s.gang("train", 4, 0, 4, 4)
	s.allAllocated(4)
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "train-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.event("train-0", "Freed", "it has 3 of its 4 claims")
	s.claim("other", 8, nil)
	s.allocated("other")
}

func TestClaimsOfAGangThatDisagreeAboutItsSize(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.start(settings{})
	s.gang("differ", 2, 0, 1, 1)
	s.gang("differ", 3, 1, 2, 1)
	s.event("differ-0", "InvalidLabel", "all claims of a gang have the same")
}

// A pod with two claims of one gang gets both on its node.
func TestPodsWithSeveralClaimsOfAGang(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	for i := range 2 {
		s.pod(fmt.Sprint("p-", i), nil, fmt.Sprint("train-", i), fmt.Sprint("train-", i+2))
	}
	s.claim("taken", 2, nil)
	s.start(settings{})
	s.allocated("taken")
	s.gang("train", 4, 0, 4, 4)
	s.allAllocated(5)
	for i := range 2 {
		if a, b := nodeOf(s.get(fmt.Sprint("train-", i))), nodeOf(s.get(fmt.Sprint("train-", i+2))); a != b {
			t.Errorf("the claims of pod p-%d are on %s and %s", i, a, b)
		}
		s.bound(fmt.Sprint("p-", i))
	}
}

// A claim of a gang and one of none are allocated before anybody knows that one
// pod has both: they are on different nodes, and come together for the pod.
func TestClaimsThatTurnOutToBeOfOnePod(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.start(settings{})
	s.gang("train", 2, 0, 2, 4)
	s.allAllocated(2)
	s.claim("beside", 4, nil)
	if gang, beside := nodeOf(s.get("train-0")), nodeOf(s.allocated("beside")); gang == beside {
		t.Fatalf("claim beside is on %s, which has no room", beside)
	}
	s.pod("p-0", nil, "train-0", "beside")
	s.pod("p-1", nil, "train-1")
	if got := s.bound("p-0"); got != nodeOf(s.get("train-0")) || got != nodeOf(s.get("beside")) {
		t.Errorf("the pod is on %s, its claims are on %s and %s", got, nodeOf(s.get("train-0")), nodeOf(s.get("beside")))
	}
	s.bound("p-1")
	s.noneTwice()
}
