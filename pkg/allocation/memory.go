package allocation

import (
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// How long a node is left out for a claim that kube-scheduler has taken away
// from it: the time doubles with each such node.
const (
	firstAvoidance   = 10 * time.Second
	longestAvoidance = 10 * time.Minute
)

// memory is what the controller knows of claims beside what the API has. A
// controller that leads next does without. It is safe for concurrent use.
type memory struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	claims map[types.UID]*remembered
}

// remembered is what is known of one claim.
type remembered struct {
	// busy: it is being planned or written.
	busy bool
	// freeing: we are taking its allocation back, or have done so.
	freeing bool
	// used: its last pod has ended.
	used bool
	// again: it is allocated once more after that.
	again bool
	// unsettled is what we wrote an allocation into without getting an answer.
	unsettled *resourceapi.ResourceClaim
	// told is the last event about something that lasts, which is told once.
	told Reason
	// avoid has nodes that are left out until a time, and how often that
	// happened.
	avoid map[string]time.Time
	moved int
	// seen is when an allocation that has no timestamp was seen first.
	seen time.Time
}

func newMemory(clock clock.PassiveClock) *memory {
	return &memory{clock: clock, claims: map[types.UID]*remembered{}}
}

// update changes what is known of a claim.
func (m *memory) update(uid types.UID, change func(*remembered)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claims[uid] == nil {
		m.claims[uid] = &remembered{}
	}
	change(m.claims[uid])
}

// of returns a copy of what is known of a claim.
func (m *memory) of(uid types.UID) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.claims[uid]; r != nil {
		return *r
	}
	return remembered{}
}

// forget drops what is known of a claim that is gone.
func (m *memory) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.claims, uid)
}

// once tells whether a reason has not been told of since the last other one.
func (m *memory) once(uid types.UID, reason Reason) bool {
	first := false
	m.update(uid, func(r *remembered) { first, r.told = r.told != reason, reason })
	return first
}

// seize marks claims as busy, or none of them if one is already.
func (m *memory) seize(uids ...types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range uids {
		if r := m.claims[uid]; r != nil && (r.busy || r.unsettled != nil) {
			return false
		}
	}
	for _, uid := range uids {
		if m.claims[uid] == nil {
			m.claims[uid] = &remembered{}
		}
		m.claims[uid].busy = true
	}
	return true
}

func (m *memory) release(uids ...types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range uids {
		if r := m.claims[uid]; r != nil {
			r.busy = false
		}
	}
}

// leaveOut notes that a node did not do for a claim, and returns for how long it
// is left out.
func (m *memory) leaveOut(uid types.UID, node string) (wait time.Duration) {
	m.update(uid, func(r *remembered) {
		wait = min(firstAvoidance<<min(r.moved, 10), longestAvoidance)
		r.moved++
		avoid := map[string]time.Time{node: m.clock.Now().Add(wait)}
		for other, until := range r.avoid {
			if other != node && until.After(m.clock.Now()) {
				avoid[other] = until
			}
		}
		r.avoid = avoid
	})
	return wait
}

// leftOut returns the nodes that are left out for a claim now, and when the
// first of them no longer is.
func (m *memory) leftOut(uid types.UID) (map[string]bool, time.Time) {
	var first time.Time
	out := map[string]bool{}
	for node, until := range m.of(uid).avoid {
		if !until.After(m.clock.Now()) {
			continue
		}
		out[node] = true
		if first.IsZero() || until.Before(first) {
			first = until
		}
	}
	return out, first
}
