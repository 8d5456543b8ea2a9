package admission

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// validateConfigs decodes what is meant for this driver, as its plugin will.
func (v *Validator) validateConfigs(ctx context.Context, c *claim) field.ErrorList {
	var errs field.ErrorList
	for i, config := range c.spec.Devices.Config {
		if config.Opaque == nil || config.Opaque.Driver != v.driver {
			continue
		}
		path := c.specPath.Child("devices", "config").Index(i)
		value, err := v.configs.Decode(config.Opaque.Parameters.Raw)
		if err != nil {
			errs = append(errs, invalid(path.Child("opaque", "parameters"), err))
			continue
		}
		if why := v.misplaced(ctx, c, config.Requests, value); why != "" {
			errs = append(errs, field.Invalid(path.Child("requests"), strings.Join(config.Requests, ", "), why))
		}
	}
	return errs
}

// invalid is an error about a value that is too long to repeat.
func invalid(path *field.Path, err error) *field.Error {
	return &field.Error{Type: field.ErrorTypeInvalid, Field: path.String(), BadValue: field.OmitValueType{}, Detail: err.Error()}
}

// misplaced says why a configuration can configure nothing of the requests that
// it names; empty if it can, or if that is not known.
func (v *Validator) misplaced(ctx context.Context, c *claim, requests []string, value runtime.Object) string {
	if len(requests) == 0 {
		return ""
	}
	kind := value.GetObjectKind().GroupVersionKind().Kind
	var found []string
	for _, asked := range classes.Of(&c.spec) {
		parent, _, _ := strings.Cut(asked.Request, "/")
		if !slices.Contains(requests, asked.Request) && !slices.Contains(requests, parent) {
			continue
		}
		class, known := v.class(ctx, asked.Class)
		if !known || !class.Ours || configures(kind, class.Kind) {
			return ""
		}
		found = append(found, class.Kind)
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return fmt.Sprintf("kind %s does not configure devices of type %s: name a request that it fits, or remove it", kind, strings.Join(slices.Compact(found), ", "))
}

// configures tells whether a kind of configuration may have a part in a kind of
// device.
func configures(config, kind string) bool {
	switch device.Kind(kind) {
	case device.KindGPU:
		return config == v1alpha1.GpuConfigKind
	case device.KindVF:
		return config == v1alpha1.VfConfigKind
	default: // both, or not known
		return true
	}
}

// validateClasses refuses a claim that asks for devices of two allocators:
// neither could allocate it alone.
func (v *Validator) validateClasses(ctx context.Context, c *claim) field.ErrorList {
	var managed string
	var others []*field.Error
	for i, r := range c.spec.Devices.Requests {
		judge := func(name string, path *field.Path) {
			if class, known := v.class(ctx, name); class.Managed {
				managed = name
			} else if known {
				others = append(others, field.Invalid(path, name, ""))
			}
		}
		if r.Exactly != nil {
			judge(r.Exactly.DeviceClassName, c.classPath(i, -1))
		}
		for j, sub := range r.FirstAvailable {
			judge(sub.DeviceClassName, c.classPath(i, j))
		}
	}
	if managed == "" {
		return nil
	}
	for _, err := range others {
		err.Detail = fmt.Sprintf("another request is of the managed class %q, which the controller allocates, and this one is kube-scheduler's: "+
			"use managed classes for all requests (label %s=true) or for none, or make two claims", managed, v1alpha1.LabelManagedClass)
	}
	return others
}

// ownLabels are the keys of labels that claims of this driver may have.
func ownLabels() []string {
	return []string{v1alpha1.LabelGang, v1alpha1.LabelGangSize, v1alpha1.LabelGangTimeout, v1alpha1.LabelUnusedAfter}
}

func sameLabels(a, b map[string]string) bool {
	return !slices.ContainsFunc(ownLabels(), func(key string) bool {
		va, hasA := a[key]
		vb, hasB := b[key]
		return va != vb || hasA != hasB
	})
}

func (v *Validator) validateLabels(ctx context.Context, c *claim) field.ErrorList {
	var errs field.ErrorList
	_, gang := c.labels[v1alpha1.LabelGang]
	size, sized := c.labels[v1alpha1.LabelGangSize]
	_, timed := c.labels[v1alpha1.LabelGangTimeout]
	path := func(key string) *field.Path { return c.labelsPath.Key(key) }
	if gang && c.labels[v1alpha1.LabelGang] == "" {
		errs = append(errs, field.Required(path(v1alpha1.LabelGang), "want a name that all claims of the gang share"))
	}
	if gang && !sized {
		errs = append(errs, field.Required(path(v1alpha1.LabelGangSize), "a gang needs its size: the number of its claims, such as 16"))
	}
	if sized {
		if n, err := strconv.Atoi(size); err != nil || n < 1 {
			errs = append(errs, field.Invalid(path(v1alpha1.LabelGangSize), size, "want the number of the gang's claims, 1 or more, such as 16"))
		}
	}
	for key, set := range map[string]bool{v1alpha1.LabelGangSize: sized, v1alpha1.LabelGangTimeout: timed} {
		if set && !gang {
			errs = append(errs, field.Forbidden(path(key), "means nothing without the gang's name: set the label "+v1alpha1.LabelGang+" too, or remove this one"))
		}
	}
	for _, key := range []string{v1alpha1.LabelGangTimeout, v1alpha1.LabelUnusedAfter} {
		value, set := c.labels[key]
		if d, err := time.ParseDuration(value); set && (err != nil || d <= 0) {
			errs = append(errs, field.Invalid(path(key), value, "want a duration of more than 0, such as 90s, 5m or 1h30m"))
		}
	}
	if gang && v.noneManaged(ctx, c) {
		errs = append(errs, field.Forbidden(path(v1alpha1.LabelGang),
			"only the controller allocates gangs, and no request of this claim is of a managed class: use classes with the label "+v1alpha1.LabelManagedClass+"=true"))
	}
	slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
	return errs
}

// noneManaged tells whether the claim asks for devices of this driver by classes
// of which all are known and none is managed.
func (v *Validator) noneManaged(ctx context.Context, c *claim) bool {
	ours := false
	for _, a := range classes.Of(&c.spec) {
		class, known := v.class(ctx, a.Class)
		if !known || class.Managed {
			return false
		}
		ours = ours || class.Ours
	}
	return ours
}
