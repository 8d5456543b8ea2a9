package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// GpuConfigKind is the kind of [GpuConfig].
const GpuConfigKind = "GpuConfig"

// GpuConfig configures a GPU for a claim. It has no settings yet: sharing and
// MIG will bring them. It exists so that a claim which carries one is checked
// from the first release on, and a field that a later release understands is
// refused by this one instead of being ignored.
type GpuConfig struct {
	metav1.TypeMeta `json:",inline"`
}

// DefaultGpuConfig returns the configuration of a GPU whose claim says nothing.
func DefaultGpuConfig() *GpuConfig {
	return &GpuConfig{TypeMeta: metav1.TypeMeta{
		APIVersion: SchemeGroupVersion.String(),
		Kind:       GpuConfigKind,
	}}
}

// Default fills in what the user left out.
func (c *GpuConfig) Default() {}

// Validate returns an error that names every field with a wrong value.
func (c *GpuConfig) Validate() error { return nil }

// DeepCopyObject returns a copy of the configuration.
func (c *GpuConfig) DeepCopyObject() runtime.Object {
	if c == nil {
		return nil
	}
	out := *c
	return &out
}
