package allocation

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
)

// publish tells of the machine's slices in a generation; only of some, if max is not 0.
func (s *stand) publish(machine fleettest.Machine, generation int64, most int) {
	for i, slice := range machine.Slices() {
		if most > 0 && i >= most {
			return
		}
		slice.Spec.Pool.Generation = generation
		s.Fleet.SetSlice(slice)
	}
}

// A device changes hands between the choice and the write.
func TestWhatIsNoLongerOursIsNotGiven(t *testing.T) {
	machine := fleettest.DGX("dgx-0")
	others := machine
	others.Managed = false
	for name, publish := range map[string]func(*stand){
		"it is another's":              func(s *stand) { s.publish(others, 2, 0) },
		"the slices are being updated": func(s *stand) { s.publish(others, 2, 1) },
		"the node is gone":             func(s *stand) { s.feed.nodeGone(machine.Object(nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, machine)
			s.make(gpus("late", 1, nil))
			claim := s.claims.all()[0]
			choices, err := s.choose(func() ([]fit.Choice, error) {
				return s.planner.Together(t.Context(), fit.Ask{Claims: []*resourceapi.ResourceClaim{claim}})
			})
			if err != nil {
				t.Fatal(err)
			}
			publish(s)
			if err := s.writeAll(t.Context(), []*resourceapi.ResourceClaim{claim}, choices); !errors.Is(err, errOutdated) {
				t.Errorf("the write ended with: %v", err)
			}
			if got := s.allocated(); len(got) > 0 {
				t.Errorf("allocated: %v", got)
			}
		})
	}
}

// planned makes a gang of two claims of which one has been written.
func (s *stand) planned() *gangplan.Plan {
	s.t.Helper()
	s.make(gpus("train-0", 4, inGang("2")))
	s.make(gpus("train-1", 4, inGang("2")))
	gang := types.NamespacedName{Namespace: "default", Name: "train"}
	g, err := s.gather(gang)
	if err != nil {
		s.t.Fatal(err)
	}
	choices, err := s.choose(func() ([]fit.Choice, error) { return s.chooseGang(s.t.Context(), g, g.want) })
	if err != nil {
		s.t.Fatal(err)
	}
	plan := &gangplan.Plan{Gang: gang}
	for i, choice := range choices {
		plan.Members = append(plan.Members, gangplan.Member{Name: g.want[i].Name, UID: choice.Claim, Node: choice.Node, Allocation: choice.Allocation})
	}
	if err := s.plans.Save(s.t.Context(), *plan); err != nil {
		s.t.Fatal(err)
	}
	s.unfinished.put(plan)
	if _, err := s.writeMember(s.t.Context(), gang, &plan.Members[0]); err != nil {
		s.t.Fatal(err)
	}
	return plan
}

// Slices that are being updated are no reason to take a gang's devices back, unless
// that comes to no end.
func TestAGangWhoseSlicesAreBeingUpdated(t *testing.T) {
	machine := fleettest.DGX("dgx-0")
	t.Run("for a moment", func(t *testing.T) {
		s := newStand(t, machine)
		plan := s.planned()
		s.publish(machine, 2, 1)
		if err := s.resume(t.Context(), plan); !errors.Is(err, errInFlight) {
			t.Errorf("while they are being updated: %v", err)
		}
		if diff := cmp.Diff(map[string]bool{"train-0": true}, s.allocated()); diff != "" {
			t.Errorf("allocated meanwhile (-want +got):\n%s", diff)
		}
		s.publish(machine, 2, 0)
		if err := s.resume(t.Context(), plan); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]bool{"train-0": true, "train-1": true}, s.allocated()); diff != "" {
			t.Errorf("allocated in the end (-want +got):\n%s", diff)
		}
	})
	t.Run("for too long", func(t *testing.T) {
		s := newStand(t, machine)
		plan := s.planned()
		s.publish(machine, 2, 1)
		s.unfinished.flights[plan.Gang] = time.Now().Add(-longestFlight)
		if err := s.resume(t.Context(), plan); err != nil {
			t.Error(err)
		}
		if got := s.allocated(); len(got) > 0 || s.unfinished.get(plan.Gang) != nil {
			t.Errorf("still allocated: %v", got)
		}
	})
}
