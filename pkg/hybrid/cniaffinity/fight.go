package cniaffinity

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// fight is how often somebody has undone what was written.
type fight struct {
	reverts int
	// open says that the last revert was counted, and nothing was written since.
	open bool
	// next is when to write again.
	next time.Time
	// last is when it was written last, and for which side.
	last time.Time
	side v1alpha1.NodeSide
}

// resist returns how long to wait before writing. Each write has the pods of the
// network plugin replaced, so one that is undone again and again does harm. The
// first time is for free: an owner who applies his objects anew may mean no harm.
func (k *Keeper) resist(name types.NamespacedName, side v1alpha1.NodeSide, again bool) time.Duration {
	f := k.fights[name]
	if !again && f.side != side {
		delete(k.fights, name)
		return 0
	}
	now := k.Clock.Now()
	if !f.open {
		f.open = true
		f.reverts++
		k.Metrics.reverts.WithLabelValues(name.Namespace, name.Name).Inc()
		f.next = now.Add(k.wait(f.reverts))
		k.fights[name] = f
	}
	return max(0, f.next.Sub(now))
}

// wait is none for the first revert, and then doubles.
func (k *Keeper) wait(reverts int) time.Duration {
	if reverts < 2 {
		return 0
	}
	wait := k.FirstWait
	for range reverts - 2 {
		if wait *= 2; wait >= k.LongestWait {
			break
		}
	}
	return min(wait, k.LongestWait)
}

// written remembers a write.
func (k *Keeper) written(name types.NamespacedName, side v1alpha1.NodeSide) {
	f := k.fights[name]
	f.open, f.last, f.side = false, k.Clock.Now(), side
	k.fights[name] = f
}

// settle forgets about reverts once a write has stayed for long. It returns after
// how long to look at that again, or 0.
func (k *Keeper) settle(name types.NamespacedName) time.Duration {
	f, ok := k.fights[name]
	if !ok || f.reverts == 0 {
		return 0
	}
	if f.open {
		// Who took it away has set it again.
		f.open, f.last = false, k.Clock.Now()
		k.fights[name] = f
	}
	if left := f.last.Add(2 * k.LongestWait).Sub(k.Clock.Now()); left > 0 {
		return left
	}
	delete(k.fights, name)
	return 0
}

// tellReverted says who has undone it, and what to do about that.
func (v *visit) tellReverted(ctx context.Context, s *state) {
	want, reverts := expression(v.side), v.fights[v.name].reverts
	v.refuse(ctx, ReasonReverted, "the node affinity %s %s %v was taken away %d times%s; it is set again after %s, for that replaces the pods each time: have whoever applies this object set it, or leave the DaemonSet out of hybrid.cniAffinity",
		want.Key, want.Operator, want.Values, reverts, by(s.object), v.wait(reverts))
}

// by names who has written the object last, other than this package.
func by(object *unstructured.Unstructured) string {
	name, at := "", time.Time{}
	for _, entry := range object.GetManagedFields() {
		if entry.Manager != Manager && entry.Subresource == "" && entry.Time != nil && entry.Time.After(at) {
			name, at = entry.Manager, entry.Time.Time
		}
	}
	if name == "" {
		return ""
	}
	return ", the last time probably by " + name
}

// fine says that a DaemonSet is as wanted, or will be when its operator has done
// what it is told.
func (v *visit) fine(byOperator bool) {
	v.Metrics.set(v.name, status{side: v.side, pending: byOperator})
	v.teller.forget(v.name)
}

// refuse says why a DaemonSet is not as wanted.
func (v *visit) refuse(ctx context.Context, reason Reason, format string, args ...any) {
	v.Metrics.set(v.name, status{side: v.side, problem: reason})
	v.teller.tell(ctx, v.name, v.set, reason, format, args...)
}
