package v1alpha1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// DecodeNodeConfig returns the configuration in a file in YAML or JSON, with
// its defaults filled in. Unknown and repeated fields, another kind and wrong
// values are errors that name them.
func DecodeNodeConfig(raw []byte) (*NodeConfig, error) {
	return decodeFile(raw, "the plugin", NodeConfigKind, &NodeConfig{})
}

// decodeFile returns the configuration of a program in its file. Empty says of
// which type it is.
func decodeFile[T Config](raw []byte, program, kind string, empty T) (T, error) {
	var none T
	document, err := onlyDocument(raw, kind)
	if err != nil {
		return none, err
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(SchemeGroupVersion.WithKind(kind), empty)
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	object, gvk, err := strict.Decode(document, nil, nil)
	if err != nil {
		switch {
		case runtime.IsMissingVersion(err):
			return none, fmt.Errorf("apiVersion is missing: want %q", SchemeGroupVersion)
		case runtime.IsMissingKind(err):
			return none, fmt.Errorf("kind is missing: want %s", kind)
		case runtime.IsNotRegisteredError(err) && gvk != nil:
			return none, fmt.Errorf("apiVersion %q kind %q is no configuration of %s: want apiVersion %q and kind %s",
				gvk.GroupVersion(), gvk.Kind, program, SchemeGroupVersion, kind)
		}
		if strict, ok := runtime.AsStrictDecodingError(err); ok {
			return none, fmt.Errorf("%w: remove or correct what is named", errors.Join(strict.Errors()...))
		}
		return none, err
	}
	config, ok := object.(T)
	if !ok {
		return none, fmt.Errorf("kind %T is no configuration of %s: want %s", object, program, kind)
	}
	config.Default()
	if err := config.Validate(); err != nil {
		return none, err
	}
	return config, nil
}

// onlyDocument returns the one YAML document that there is in raw. A decoder
// would read the first and say nothing about the others.
func onlyDocument(raw []byte, kind string) ([]byte, error) {
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	var only []byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("split the file into YAML documents: %w", err)
		}
		if blank(document) {
			continue
		}
		if only != nil {
			return nil, errors.New("there is more than one YAML document: want one only")
		}
		only = document
	}
	if only == nil {
		return nil, fmt.Errorf("no configuration given: want an object of apiVersion %s and kind %s", SchemeGroupVersion, kind)
	}
	return only, nil
}

// blank tells whether a YAML document has nothing but comments and its own
// beginning.
func blank(document []byte) bool {
	for line := range bytes.Lines(document) {
		text := strings.TrimSpace(string(line))
		if text != "" && text != "---" && !strings.HasPrefix(text, "#") {
			return false
		}
	}
	return true
}
