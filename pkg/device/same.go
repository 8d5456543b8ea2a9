package device

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
)

// SameAnswer tells whether two looks at the hardware have told the same: the
// same inventory, or an error with the same text. A family announces a change
// only where they have not.
func SameAnswer(a Inventory, aErr error, b Inventory, bErr error) bool {
	return sameText(aErr, bErr) &&
		slices.EqualFunc(a.Faults, b.Faults, func(x, y Fault) bool {
			return x.Subject == y.Subject && x.Reason == y.Reason && sameText(x.Err, y.Err)
		}) &&
		equality.Semantic.DeepEqual(a.Devices, b.Devices) &&
		equality.Semantic.DeepEqual(a.Counters, b.Counters)
}

// sameText compares what errors say: each look makes errors of its own.
func sameText(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}
