package measure

import (
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
)

// seenLive bounds how late after a claim's creation it may be seen first for
// that moment to count as its creation: its own timestamp has whole seconds.
const seenLive = 2 * time.Second

// Claim notes what an informer says of a claim. Before is nil for one that is
// seen the first time, and now is nil for one that is gone. Neither is changed
// or kept.
func (m *Metrics) Claim(before, now *resourceapi.ResourceClaim) {
	switch {
	case now == nil && before == nil:
	case now == nil:
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, before.UID)
	case now.Status.Allocation != nil:
		m.allocated(before, now)
	case now.DeletionTimestamp != nil:
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, now.UID) // nobody allocates it any more
	default:
		m.waits(before, now)
	}
}

func (m *Metrics) waits(before, now *resourceapi.ResourceClaim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[now.UID] != nil {
		return
	}
	since := now.CreationTimestamp.Time
	if seen := m.clock.Now(); seen.After(since) && seen.Sub(since) < seenLive {
		since = seen
	}
	// Which classes are this driver's is asked when it matters: a class may
	// come after its claims.
	m.waiting[now.UID] = &waiting{
		asked: classes.Of(&now.Spec),
		since: since,
		again: before != nil && before.Status.Allocation != nil,
	}
}

func (m *Metrics) allocated(before, claim *resourceapi.ResourceClaim) {
	waited, leading := m.stopWaiting(claim)
	if !leading {
		return
	}
	var seconds float64
	switch {
	case waited == nil && (before != nil || m.old(claim)):
		return
	case waited == nil:
		seconds = claim.Status.Allocation.AllocationTimestamp.Sub(claim.CreationTimestamp.Time).Seconds()
	case waited.again:
		return
	default:
		seconds = m.clock.Since(waited.since).Seconds()
	}
	l, ours := m.labelsOf(m.fleet.View(), classes.Of(&claim.Spec))
	if !ours && !m.holdsOurs(claim) {
		return
	}
	m.durations.WithLabelValues(l.class, l.kind, l.allocator).Observe(max(0, seconds))
}

// stopWaiting returns how the claim waited, nil if that was not seen.
func (m *Metrics) stopWaiting(claim *resourceapi.ResourceClaim) (*waiting, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	waited := m.waiting[claim.UID]
	delete(m.waiting, claim.UID)
	return waited, m.leading
}

// old tells whether a claim that is allocated when it is first seen may have
// been counted before this program began, by the leader of then.
func (m *Metrics) old(claim *resourceapi.ResourceClaim) bool {
	return claim.CreationTimestamp.Time.Before(m.born) || claim.Status.Allocation.AllocationTimestamp == nil
}

// holdsOurs tells whether a claim was given devices of this driver.
func (m *Metrics) holdsOurs(claim *resourceapi.ResourceClaim) bool {
	return slices.ContainsFunc(claim.Status.Allocation.Devices.Results, func(r resourceapi.DeviceRequestAllocationResult) bool {
		return r.Driver == m.fleet.DriverName()
	})
}
