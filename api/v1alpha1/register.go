package v1alpha1

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
)

// GroupName is the API group of the configuration kinds.
const GroupName = "resource.eks-hybrid-dra"

// SchemeGroupVersion is the group and version of the kinds of this package.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// Config is a configuration of one kind.
type Config interface {
	runtime.Object
	// Default fills in what the user left out.
	Default()
	// Validate returns an error that names every field with a wrong value.
	Validate() error
}

// Decoder reads configurations. It is safe for concurrent use.
type Decoder struct {
	strict runtime.Decoder
	kinds  []string
}

// NewDecoder returns a decoder for all kinds of this package.
func NewDecoder() *Decoder {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(SchemeGroupVersion.WithKind(GpuConfigKind), &GpuConfig{})
	scheme.AddKnownTypeWithName(SchemeGroupVersion.WithKind(VfConfigKind), &VfConfig{})
	d := &Decoder{
		strict: json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Strict: true}),
	}
	for kind := range scheme.KnownTypes(SchemeGroupVersion) {
		d.kinds = append(d.kinds, kind)
	}
	slices.Sort(d.kinds)
	return d
}

// Decode returns the configuration in raw JSON with its defaults filled in.
// Unknown and repeated fields, unknown kinds and wrong values are errors that
// name them.
func (d *Decoder) Decode(raw []byte) (Config, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("no configuration given: want an object of apiVersion %s and kind %s", SchemeGroupVersion, d.allowedKinds())
	}
	object, gvk, err := d.strict.Decode(raw, nil, nil)
	if err != nil {
		switch {
		case runtime.IsMissingVersion(err):
			return nil, fmt.Errorf("apiVersion is missing: want %q", SchemeGroupVersion)
		case runtime.IsMissingKind(err):
			return nil, fmt.Errorf("kind is missing: want %s", d.allowedKinds())
		case runtime.IsNotRegisteredError(err) && gvk != nil:
			return nil, fmt.Errorf("apiVersion %q kind %q is no configuration of this driver: want apiVersion %q and kind %s",
				gvk.GroupVersion(), gvk.Kind, SchemeGroupVersion, d.allowedKinds())
		}
		if strict, ok := runtime.AsStrictDecodingError(err); ok {
			return nil, fmt.Errorf("%w: remove or correct what is named", errors.Join(strict.Errors()...))
		}
		return nil, err
	}
	config, ok := object.(Config)
	if !ok {
		return nil, fmt.Errorf("kind %T cannot configure a device: want %s", object, d.allowedKinds())
	}
	config.Default()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return config, nil
}

func (d *Decoder) allowedKinds() string { return strings.Join(d.kinds, " or ") }
