package v1alpha1

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MinSettle is the least value of [ManagedConfig.Settle]. The controller takes
// less time from the moment at which it last looks whether a device is its own to the
// write of a claim that gets it.
const MinSettle = 5 * time.Second

const (
	// defaultSettle is well above what a scheduler takes from the choice of a
	// device to the write of it.
	defaultSettle = 30 * time.Second
	maxSettle     = time.Hour
)

// managedKinds are the values of managed.kinds.
func managedKinds() []string { return []string{"gpu", "gpu-vf", "vf"} }

// SettleTime returns [ManagedConfig.Settle] as a duration. One that was left out
// is the default.
func (c *ManagedConfig) SettleTime() (time.Duration, error) {
	if c.Settle == "" {
		return defaultSettle, nil
	}
	return time.ParseDuration(c.Settle)
}

func (c *ManagedConfig) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, kind := range c.Kinds {
		switch {
		case !slices.Contains(managedKinds(), kind):
			errs = append(errs, field.NotSupported(path.Child("kinds").Index(i), kind, managedKinds()))
		case slices.Contains(c.Kinds[:i], kind):
			errs = append(errs, field.Duplicate(path.Child("kinds").Index(i), kind))
		}
	}
	errs = append(errs, validateNodeSelector(path.Child("nodeSelector"), c.NodeSelector)...)
	settle, err := c.SettleTime()
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(path.Child("settle"), c.Settle, "want a duration with its unit, such as 30s"))
	case settle < MinSettle || settle > maxSettle:
		errs = append(errs, field.Invalid(path.Child("settle"), c.Settle, fmt.Sprintf(
			"want %s to %s: with less, both allocators could give a device at the same moment", MinSettle, maxSettle)))
	}
	return errs
}

// validateNodeSelector checks labels that a Node must have.
func validateNodeSelector(path *field.Path, selector map[string]string) field.ErrorList {
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			errs = append(errs, field.Invalid(path, key, "want the key of a label: "+strings.Join(problems, "; ")))
		}
		if problems := validation.IsValidLabelValue(selector[key]); len(problems) > 0 {
			errs = append(errs, field.Invalid(path.Key(key), selector[key], "want the value of a label: "+strings.Join(problems, "; ")))
		}
	}
	return errs
}
