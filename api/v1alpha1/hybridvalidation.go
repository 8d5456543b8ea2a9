package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns an error that names every field with a wrong value.
func (c *HybridConfig) Validate() error {
	var errs field.ErrorList
	if c.CNIAffinity != nil {
		errs = append(errs, c.CNIAffinity.validate(field.NewPath("cniAffinity", "daemonSets"))...)
	}
	if c.PullSecret != nil {
		errs = append(errs, c.PullSecret.validate(field.NewPath("pullSecret"))...)
	}
	return errs.ToAggregate()
}

func (c *CNIAffinityConfig) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[types.NamespacedName]int{}
	for i, entry := range c.DaemonSets {
		wrong := entry.validate(path.Index(i))
		errs = append(errs, wrong...)
		if len(wrong) > 0 {
			continue
		}
		for _, set := range entry.Expand() {
			name := types.NamespacedName{Namespace: set.Namespace, Name: set.Name}
			if before, ok := seen[name]; ok && before != i {
				errs = append(errs, field.Invalid(path.Index(i), name.String(), path.Index(before).String()+" names this DaemonSet, too: leave one of them out"))
			}
			seen[name] = i
		}
	}
	return errs
}

func (c CNIDaemonSets) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case c.Preset != "" && (c.Namespace != "" || c.Name != ""):
		errs = append(errs, field.Invalid(path.Child("preset"), c.Preset, "a preset has names of its own: leave it out, or namespace and name"))
	case c.Preset != "" && !slices.Contains(Presets(), c.Preset):
		errs = append(errs, field.NotSupported(path.Child("preset"), c.Preset, Presets()))
	case c.Preset == "" && c.Namespace == "" && c.Name == "":
		errs = append(errs, field.Required(path, "want a preset, or the namespace and name of a DaemonSet"))
	case c.Preset == "":
		errs = append(errs, validateName(path.Child("namespace"), c.Namespace, validation.IsDNS1123Label)...)
		errs = append(errs, validateName(path.Child("name"), c.Name, validation.IsDNS1123Subdomain)...)
	}
	sides := []NodeSide{HybridNodes, CloudNodes, AnyNodes}
	if c.Nodes == "" && c.Preset == "" {
		errs = append(errs, field.Required(path.Child("nodes"), "want hybrid, cloud or any"))
	} else if c.Nodes != "" && !slices.Contains(sides, c.Nodes) {
		errs = append(errs, field.NotSupported(path.Child("nodes"), c.Nodes, sides))
	}
	return errs
}

func (c *PullSecretConfig) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	chosen := len(c.Namespaces) > 0 || c.NamespaceSelector != nil
	if c.Name != "" {
		errs = append(errs, validateName(path.Child("name"), c.Name, validation.IsDNS1123Subdomain)...)
	} else if chosen {
		errs = append(errs, field.Required(path.Child("name"), "want the name of the Secret that these namespaces get"))
	}
	for i, name := range c.Namespaces {
		errs = append(errs, validateName(path.Child("namespaces").Index(i), name, validation.IsDNS1123Label)...)
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(c.NamespaceSelector, metav1validation.LabelSelectorValidationOptions{}, path.Child("namespaceSelector"))...)
	if _, err := metav1.LabelSelectorAsSelector(c.NamespaceSelector); err != nil && len(errs) == 0 {
		errs = append(errs, field.Invalid(path.Child("namespaceSelector"), c.NamespaceSelector, err.Error()))
	}
	for i, name := range c.FormerNames {
		former := path.Child("formerNames").Index(i)
		errs = append(errs, validateName(former, name, validation.IsDNS1123Subdomain)...)
		if name != "" && name == c.Name {
			errs = append(errs, field.Invalid(former, name, "this is the name of the copies that are kept"))
		}
	}
	return errs
}

func validateName(path *field.Path, name string, check func(string) []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "want a name")}
	}
	var errs field.ErrorList
	for _, problem := range check(name) {
		errs = append(errs, field.Invalid(path, name, problem))
	}
	return errs
}
