package v1alpha1

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Defaults of [NodeLabelsConfig].
const (
	DefaultGPULabel      = "gpu"
	DefaultGPUCountLabel = "gpu-count"
)

// NodeLabelsConfig says that the plugin labels its own Node with what it finds
// there, such as gpu=h200 and gpu-count=8.
type NodeLabelsConfig struct {
	// Enabled makes the plugin set the labels. False makes it take away those
	// that it has set.
	Enabled bool `json:"enabled,omitempty"`
	// GPU is the key of the label with the model of the node's GPUs; the default
	// is "gpu".
	GPU string `json:"gpu,omitempty"`
	// GPUCount is the key of the label with the number of the node's GPUs; the
	// default is "gpu-count".
	GPUCount string `json:"gpuCount,omitempty"`
}

func (c *NodeLabelsConfig) setDefaults() {
	if c == nil {
		return
	}
	if c.GPU == "" {
		c.GPU = DefaultGPULabel
	}
	if c.GPUCount == "" {
		c.GPUCount = DefaultGPUCountLabel
	}
}

func (c *NodeLabelsConfig) validate(path *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	check := func(name, key string) {
		domain, _, qualified := strings.Cut(key, "/")
		problems := validation.IsQualifiedName(key)
		switch {
		case len(problems) > 0:
			errs = append(errs, field.Invalid(path.Child(name), key, "want the key of a label: "+strings.Join(problems, "; ")))
		case qualified && slices.ContainsFunc(platformDomains(), func(platform string) bool { return isBelow(domain, platform) }):
			errs = append(errs, field.Invalid(path.Child(name), key, "labels of this domain are the platform's, and decide what runs on a node: want a domain of your own, or none"))
		}
	}
	check("gpu", c.GPU)
	check("gpuCount", c.GPUCount)
	if c.GPU == c.GPUCount {
		errs = append(errs, field.Duplicate(path.Child("gpuCount"), c.GPUCount))
	}
	return errs
}

// platformDomains are those whose labels others go by: the chart finds hybrid nodes by
// eks.amazonaws.com/compute-type.
func platformDomains() []string {
	return []string{"kubernetes.io", "k8s.io", "amazonaws.com", "karpenter.sh"}
}

// isBelow tells whether a domain is another or below it.
func isBelow(domain, other string) bool {
	return domain == other || strings.HasSuffix(domain, "."+other)
}
