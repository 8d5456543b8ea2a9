package allocation

import (
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// together is for how long changes of what is free are gathered, once claims
// have been told of one: each makes all that wait try again.
const together = 50 * time.Millisecond

// waiting are the claims and gangs for which nothing is free. It is safe for
// concurrent use.
type waiting struct {
	clock clock.PassiveClock
	retry func(Request)

	mu    sync.Mutex
	since map[Request]time.Time
	last  time.Time
	later *time.Timer
}

func newWaiting(clock clock.PassiveClock, retry func(Request)) *waiting {
	return &waiting{clock: clock, retry: retry, since: map[Request]time.Time{}}
}

// add notes that a claim or gang, made at the given time, waits.
func (w *waiting) add(r Request, made time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since[r] = made
}

func (w *waiting) remove(r Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.since, r)
}

// changed tells that something may fit now: all try again, the oldest first.
func (w *waiting) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.since) == 0 || w.later != nil {
		return
	}
	if wait := together - w.clock.Since(w.last); wait > 0 {
		w.later = time.AfterFunc(wait, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.later = nil
			w.tryAll()
		})
		return
	}
	w.tryAll()
}

func (w *waiting) tryAll() {
	w.last = w.clock.Now()
	all := make([]Request, 0, len(w.since))
	for r := range w.since {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Request) int { return w.since[a].Compare(w.since[b]) })
	for _, r := range all {
		w.retry(r)
	}
}
