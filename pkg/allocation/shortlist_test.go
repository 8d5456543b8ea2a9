package allocation

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

func TestFailuresOfAGangInOneLine(t *testing.T) {
	if err := join(make([]error, 3)); err != nil {
		t.Errorf("no failures: %v", err)
	}
	gone := func(n int) (errs []error) {
		for i := range n {
			errs = append(errs, fmt.Errorf("%w: claim c-%d is gone", errLost, i), nil)
		}
		return errs
	}
	for n, want := range map[int]string{
		1:   "claim c-0 is gone",
		4:   "claim c-0 is gone; claim c-1 is gone; claim c-2 is gone; claim c-3 is gone",
		500: "claim c-0 is gone; claim c-1 is gone; claim c-2 is gone; and 497 more",
	} {
		err := join(gone(n))
		if !errors.Is(err, errLost) {
			t.Errorf("%d failures: %v is not what they are", n, err)
		}
		if diff := cmp.Diff(errLost.Error()+": "+want, err.Error()); diff != "" {
			t.Errorf("%d failures (-want +got):\n%s", n, diff)
		}
	}
	last := errors.New("the last")
	if err := join(append(gone(9), last)); !errors.Is(err, last) {
		t.Errorf("%v does not have what it does not name", err)
	}
}

// Whatever is told of a big gang stays short.
func TestABigGangIsToldOfInShort(t *testing.T) {
	const size = 40
	var machines []fleettest.Machine
	for i := range size / 8 {
		machines = append(machines, fleettest.DGX(fmt.Sprintf("dgx-%d", i)))
	}
	make40 := func(s *stand) {
		for i := range size {
			s.make(gpus(fmt.Sprintf("train-%02d", i), 1, inGang(fmt.Sprint(size))))
		}
		s.run()
	}
	lines := func(s *stand, reason Reason) []string {
		var found []string
		for line := range strings.Lines(s.told()) {
			if strings.Contains(line, string(reason)) {
				found = append(found, line)
			}
		}
		return found
	}
	t.Run("taken back", func(t *testing.T) {
		s := newStand(t, machines...)
		for i := 1; i < size; i += 2 {
			name := fmt.Sprintf("train-%02d", i)
			s.refuse(name, apierrors.NewForbidden(schema.GroupResource{Resource: "resourceclaims"}, name, errors.New("a policy says no")))
		}
		make40(s)
		told := lines(s, ReasonGangUndone)
		if len(told) != size/2 {
			t.Fatalf("%d claims are told, want %d: %q", len(told), size/2, told)
		}
		for _, line := range told {
			if len(line) > 1024 || !strings.Contains(line, "train-01") || !strings.HasSuffix(line, "; and 17 more\n") || strings.Contains(line, "train-39") {
				t.Errorf("%d bytes: %s", len(line), line)
			}
		}
	})
	t.Run("allocated", func(t *testing.T) {
		s := newStand(t, machines...)
		make40(s)
		told := lines(s, ReasonAllocated)
		if len(told) != size || !strings.HasSuffix(told[0], "40 claims of gang train are on dgx-0, dgx-1, dgx-2, and 2 more\n") {
			t.Errorf("%d claims are told: %q", len(told), told)
		}
	})
}
