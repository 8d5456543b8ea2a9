package allocation

import (
	"context"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// Devices that become free while a claim is looked at make it be looked at again:
// the look may have begun before they were free.
func TestWhatBecomesFreeDuringALookIsNoticed(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	first, second := gpus("first", 8, nil), gpus("second", 8, nil)
	s.make(first)
	s.run()
	s.make(second)
	r, _ := s.queue.Get()
	s.planning.Lock() // the look goes no further than to its choice
	done := make(chan error, 1)
	go func() {
		_, err := s.Reconcile(t.Context(), r)
		done <- err
	}()
	waits := func(context.Context) (bool, error) {
		s.waiting.mu.Lock()
		defer s.waiting.mu.Unlock()
		_, ok := s.waiting.since[r]
		return ok, nil
	}
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, waits)
	s.feed.claimGone(s.claims.get(keyOf(first)))
	s.planning.Unlock()
	if err != nil {
		t.Fatal("the claim is not known to wait before its devices are chosen:", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.queue.Done(r)
	if s.queue.Len() == 0 {
		t.Error("nobody looks at the claim again")
	}
	if s.run(); !s.allocated()["second"] {
		t.Error("the claim is not allocated what has become free")
	}
}
