package explain

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// events are those that were written, with the time since the beginning.
type events struct {
	start time.Time
	mu    sync.Mutex
	all   []string
}

func (e *events) Event(object runtime.Object, kind, reason, _ string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := ""
	if claim, ok := object.(*resourceapi.ResourceClaim); ok {
		name = claim.Name
	}
	e.all = append(e.all, fmt.Sprintf("%s %s %s %s", time.Since(e.start).Round(time.Second), name, kind, reason))
}

func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.all
	e.all = nil
	return taken
}

// explainer runs one in a bubble of synctest.
func explainer(t *testing.T, f *fleet.Fleet) (*Explainer, *events) {
	t.Helper()
	recorded := &events{start: time.Now()}
	e := New(Options{Fleet: f, Recorder: recorded, Consumers: func(*resourceapi.ResourceClaim) consumers.Consumers { return pod(nil) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e, recorded
}

// after lets time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func expect(t *testing.T, recorded *events, want ...string) {
	t.Helper()
	if got := strings.Join(recorded.take(), "\n"); got != strings.Join(want, "\n") {
		t.Fatalf("at %s want events\n%s\ngot\n%s", time.Since(recorded.start), strings.Join(want, "\n"), got)
	}
}

func TestAClaimIsExplainedOnceAndAgainWhenSomethingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(machine{name: "dgx-0", taken: []string{"gpu-0"}})
		e, recorded := explainer(t, f)
		claim := claimOf(ask("gpus", "gpu", 4))
		e.Claim(nil, claim)
		after(9 * time.Second)
		expect(t, recorded)
		after(time.Second)
		expect(t, recorded, "10s c Normal ClaimWaiting")
		after(5 * time.Minute)
		expect(t, recorded)
		// The machine goes: that is news, but not at once.
		f.DeleteSlice("dgx-0-0")
		f.DeleteSlice("dgx-0-1")
		after(5*time.Minute + 20*time.Second)
		expect(t, recorded, "10m30s c Warning ClaimCannotBeAllocated")
		// It is said again before API servers forget it.
		after(time.Hour)
		expect(t, recorded, "1h0m30s c Warning ClaimCannotBeAllocated")

		allocated := claim.DeepCopy()
		allocated.Status.Allocation = &resourceapi.AllocationResult{}
		e.Claim(claim, allocated)
		after(2 * time.Hour)
		expect(t, recorded)
		if len(e.waiting) != 0 || len(e.queue.heap) != 0 {
			t.Errorf("an allocated claim is kept: %v", e.waiting)
		}
	})
}

func TestWhatIsNotExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, recorded := explainer(t, fleetOf(machine{name: "dgx-0"}))
		other := claimOf(ask("nic", "nic", 1))
		quick, gone := claimOf(ask("gpus", "gpu", 8)), claimOf(ask("gpus", "gpu", 8))
		other.UID, quick.UID, gone.UID = "1", "2", "3"
		e.Claim(nil, other)
		e.Claim(nil, quick)
		e.Claim(nil, gone)
		after(time.Second)
		allocated := quick.DeepCopy()
		allocated.Status.Allocation = &resourceapi.AllocationResult{}
		e.Claim(quick, allocated)
		e.Claim(gone, nil)
		e.Claim(nil, nil)
		after(time.Hour)
		expect(t, recorded)
	})
}

func TestManyClaimsAreExplainedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, recorded := explainer(t, fleetOf(machine{name: "dgx-0"}))
		for i := range 100 {
			claim := claimOf(ask("gpus", "gpu", 8))
			claim.Name, claim.UID = fmt.Sprint(i), types.UID(fmt.Sprint(i))
			e.Claim(nil, claim)
		}
		after(11 * time.Second)
		if n := len(recorded.take()); n < burst || n > burst+2*perSecond {
			t.Errorf("%d events in the first second, want about %d", n, burst+perSecond)
		}
		after(time.Minute)
		seen := len(recorded.take())
		if seen < 70 {
			t.Errorf("only %d further claims were explained within a minute", seen)
		}
	})
}

func TestAClaimThatComesLaterButIsDueFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, recorded := explainer(t, fleetOf(machine{name: "dgx-0"}))
		first := claimOf(ask("gpus", "gpu", 8))
		e.Claim(nil, first)
		after(35 * time.Second) // its next turn is at 70 s
		recorded.take()
		second := claimOf(ask("gpus", "gpu", 8))
		second.Name, second.UID = "second", "second"
		e.Claim(nil, second)
		after(10 * time.Second)
		expect(t, recorded, "45s second "+corev1.EventTypeWarning+" ClaimCannotBeAllocated")
	})
}

// BenchmarkExplain is of a claim that fits on none of 1 000 nodes.
func BenchmarkExplain(b *testing.B) {
	var machines []machine
	for i := range 1000 {
		machines = append(machines, machine{name: fmt.Sprintf("dgx-%d", i), taken: []string{"gpu-0"}})
	}
	view, analyst := fleetOf(machines...).View(), NewAnalyst(driver)
	for name, claim := range map[string]*resourceapi.ResourceClaim{
		"count":      claimOf(ask("gpus", "gpu", 4)),
		"constraint": sameNUMA(claimOf(ask("gpus", "gpu", 3))),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				analyst.Explain(b.Context(), claim, view, pod(nil))
			}
		})
	}
}
