package cniaffinity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Reason is why a DaemonSet is not kept where it belongs. It is also the reason of
// the event that says so.
type Reason string

// Reasons of problems.
const (
	// ReasonOwned is for DaemonSets of an operator that is not known here.
	ReasonOwned Reason = "CNIAffinityOwnedByOperator"
	// ReasonNoNode is for changes after which there would be no pod any more.
	ReasonNoNode Reason = "CNIAffinityNoNodeMatches"
	// ReasonReverted is for DaemonSets that somebody else writes differently again
	// and again.
	ReasonReverted Reason = "CNIAffinityReverted"
	// ReasonUnreadable is for objects that are not as they should be.
	ReasonUnreadable Reason = "CNIAffinityUnreadable"
	// ReasonFailed is for errors of the API.
	ReasonFailed Reason = "CNIAffinityFailed"
)

// Reasons are all reasons of problems.
func Reasons() []Reason {
	return []Reason{ReasonOwned, ReasonNoNode, ReasonReverted, ReasonUnreadable, ReasonFailed}
}

// Reasons of other events.
const (
	eventKept     = "CNIAffinityKept"
	eventReturned = "CNIAffinityReturned"
)

// repeatAfter is how long a problem lasts before it is told again: the API server
// forgets events after an hour.
const repeatAfter = 50 * time.Minute

// teller tells of problems when they begin, and again while they last.
type teller struct {
	events record.EventRecorder
	clock  clock.PassiveClock
	last   map[types.NamespacedName]told
}

type told struct {
	reason Reason
	text   string
	at     time.Time
}

func newTeller(events record.EventRecorder, c clock.PassiveClock) *teller {
	return &teller{events: events, clock: c, last: map[types.NamespacedName]told{}}
}

func (t *teller) tell(ctx context.Context, name types.NamespacedName, about *unstructured.Unstructured, reason Reason, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	before, ok := t.last[name]
	if ok && before.reason == reason && (before.text == text || reason == ReasonFailed) && t.clock.Since(before.at) < repeatAfter {
		return
	}
	t.last[name] = told{reason: reason, text: text, at: t.clock.Now()}
	klog.FromContext(ctx).Info("A DaemonSet is not kept where it belongs", "reason", reason, "message", text)
	t.events.Event(about, corev1.EventTypeWarning, string(reason), text)
}

func (t *teller) forget(name types.NamespacedName) { delete(t.last, name) }
