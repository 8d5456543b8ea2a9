package allocation

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// told returns the events so far.
func (s *stand) told() string {
	var told strings.Builder
	for len(s.events.Events) > 0 {
		told.WriteString(<-s.events.Events + "\n")
	}
	return told.String()
}

func claimRequest(name string) Request {
	return Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: name}}
}

// Others are faster all the time. That is no error, and is tried again.
func TestALostRaceIsNoError(t *testing.T) {
	resource := schema.GroupResource{Resource: "resourceclaims"}
	for name, test := range map[string]struct {
		err  error
		race bool
	}{
		"changed":             {apierrors.NewConflict(resource, "a", errors.New("the object has been modified")), true},
		"gone":                {apierrors.NewNotFound(resource, "a"), true},
		"no namespace":        {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "default"), false},
		"an error of its own": {apierrors.NewInternalError(errors.New("broken")), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fleettest.DGX("dgx-0"))
			s.make(gpus("a", 1, nil))
			s.refuse("a", test.err)
			result, err := s.Reconcile(t.Context(), claimRequest("a"))
			if (err == nil) != test.race || (result.RequeueAfter > 0) != test.race {
				t.Errorf("%+v, %v", result, err)
			}
			if !test.race {
				return
			}
			again, err := s.Reconcile(t.Context(), claimRequest("a"))
			if err != nil || again.RequeueAfter <= result.RequeueAfter {
				t.Errorf("after %v: %+v, %v", result.RequeueAfter, again, err)
			}
		})
	}
}

func TestAClaimThatTheAPIServerRefusesIsToldOnce(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.make(gpus("a", 1, nil))
	s.refuse("a", apierrors.NewForbidden(schema.GroupResource{Resource: "resourceclaims"}, "a", errors.New("a policy says no")))
	for range 3 {
		if _, err := s.Reconcile(t.Context(), claimRequest("a")); err == nil {
			t.Error("no error")
		}
	}
	if told := s.told(); strings.Count(told, "WriteRefused") != 1 || !strings.Contains(told, "a policy says no") {
		t.Errorf("events: %s", told)
	}
}

// What nothing can fit is not planned each time that something else changes.
func TestAClaimThatNothingCanFitIsTriedLessAndLess(t *testing.T) {
	for name, labels := range map[string]map[string]string{"a claim": nil, "a gang": inGang("1")} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fleettest.DGX("dgx-0"))
			claim := gpus("a", 1, labels)
			claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, fleettest.Request("wrong", fleettest.ClassGPU, 1, "no.such.thing"))
			s.make(claim)
			s.run()
			if told := s.told(); strings.Count(told, "CannotAllocate") != 1 {
				t.Errorf("events: %s", told)
			}
			s.waiting.changed()
			if n := s.queue.Len(); n > 0 {
				t.Errorf("%d try again because something has changed", n)
			}
			r := claimRequest("a")
			if labels != nil {
				r = Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "train"}, Gang: true}
			}
			first, err := s.Reconcile(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			second, err := s.Reconcile(t.Context(), r)
			if err != nil || first.RequeueAfter == 0 || second.RequeueAfter <= first.RequeueAfter {
				t.Errorf("pauses %v, %v, %v", first.RequeueAfter, second.RequeueAfter, err)
			}
		})
	}
}

func TestClaimsOfAGangThatSayDifferentTimeouts(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	short := inGang("2")
	short[v1alpha1.LabelGangTimeout] = "5s"
	s.make(gpus("train-0", 1, short))
	s.make(gpus("train-1", 1, inGang("2")))
	s.run()
	if told := s.told(); strings.Count(told, "InvalidLabel") != 2 || !strings.Contains(told, v1alpha1.LabelGangTimeout) || !strings.Contains(told, "5s") {
		t.Errorf("events: %s", told)
	}
	if got := s.allocated(); len(got) > 0 {
		t.Errorf("allocated: %v", got)
	}
}

// A gang for which no pod comes waits for its pods with all of its claims.
func TestAGangThatIsFreedAsUnusedWaitsForItsPods(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	soon := inGang("2")
	soon[v1alpha1.LabelUnusedAfter] = "1ns"
	s.make(gpus("train-0", 4, soon))
	s.make(gpus("train-1", 4, inGang("2")))
	s.run()
	waits := map[string]bool{}
	for _, claim := range s.claims.all() {
		waits[claim.Name] = claim.Annotations[claimwrite.AnnotationFreedUnused] != ""
	}
	if diff := cmp.Diff(map[string]bool{"train-0": true, "train-1": true}, waits); diff != "" {
		t.Errorf("wait for a pod (-want +got):\n%s", diff)
	}
	if got := s.allocated(); len(got) > 0 {
		t.Errorf("allocated: %v", got)
	}
	if told := s.told(); strings.Contains(told, "GangTimedOut") {
		t.Errorf("events: %s", told)
	}
	for _, claim := range s.claims.all() {
		claim = claim.DeepCopy()
		delete(claim.Labels, v1alpha1.LabelUnusedAfter) // let the pods have their time
		claim, err := s.Client.ResourceV1().ResourceClaims(claim.Namespace).Update(t.Context(), claim, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.feed.observe(claim, fromWatch)
	}
	s.pod("p-0", "train-0")
	s.pod("p-1", "train-1")
	s.run()
	if diff := cmp.Diff(map[string]bool{"train-0": true, "train-1": true}, s.allocated()); diff != "" {
		t.Errorf("allocated for pods (-want +got):\n%s", diff)
	}
}
