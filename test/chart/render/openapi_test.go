package render

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// versions are patch releases of Kubernetes that the chart is for: the oldest, the
// one that the test cluster runs, and those of "make test-versions".
func versions(t *testing.T) []string {
	t.Helper()
	found := []string{oldest}
	for file, pattern := range map[string]string{
		root + "/test/cluster/parts/kubernetes/go.mod": `k8s\.io/kubernetes (v1\.\d+\.\d+)`,
		root + "/Makefile": `(?m)^(?:OLD_)?VERSIONS \?= (.*)$`,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		matches := regexp.MustCompile(pattern).FindAllStringSubmatch(string(content), -1)
		if matches == nil {
			t.Fatalf("%s does not have %s", file, pattern)
		}
		for _, match := range matches {
			for version := range strings.FieldsSeq(match[1]) {
				found = append(found, "v"+strings.TrimPrefix(version, "v"))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// schemas are the OpenAPI schemas in a module of Kubernetes.
type schemas struct {
	folder string
	files  map[string]map[string]*schema
}

type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	AllOf                []*schema          `json:"allOf"`
	OneOf                []*schema          `json:"oneOf"`
	Required             []string           `json:"required"`
	Kinds                []struct {
		Group, Version, Kind string
	} `json:"x-kubernetes-group-version-kind"`
}

func newSchemas(t *testing.T, version string) *schemas {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	command.Dir = t.TempDir() // of no module
	out, err := command.Output()
	if err != nil {
		t.Fatalf("downloading Kubernetes %s: %v\n%s", version, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return &schemas{folder: filepath.Join(module.Dir, "api", "openapi-spec", "v3"), files: map[string]map[string]*schema{}}
}

// of returns the schemas of a version of an API.
func (s *schemas) of(apiVersion string) (map[string]*schema, error) {
	name := "apis__" + strings.ReplaceAll(apiVersion, "/", "__")
	if !strings.Contains(apiVersion, "/") {
		name = "api__" + apiVersion
	}
	if known, ok := s.files[name]; ok {
		return known, nil
	}
	content, err := os.ReadFile(filepath.Join(s.folder, name+"_openapi.json"))
	if err != nil {
		return nil, fmt.Errorf("no API %s: %w", apiVersion, err)
	}
	var document struct {
		Components struct {
			Schemas map[string]*schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("schemas of %s: %w", apiVersion, err)
	}
	s.files[name] = document.Components.Schemas
	return document.Components.Schemas, nil
}

// check returns what is wrong with an object.
func (s *schemas) check(object *unstructured.Unstructured) []string {
	known, err := s.of(object.GetAPIVersion())
	if err != nil {
		return []string{err.Error()}
	}
	gvk := object.GroupVersionKind()
	for _, candidate := range known {
		for _, k := range candidate.Kinds {
			if k.Group == gvk.Group && k.Version == gvk.Version && k.Kind == gvk.Kind {
				return checker{known}.check(candidate, object.Object, "")
			}
		}
	}
	return []string{"there is no kind " + gvk.String()}
}

type checker struct{ known map[string]*schema }

// check compares a value with its schema, and with nothing but types, names of
// fields and which are needed: values are the API server's business.
func (c checker) check(s *schema, value any, path string) []string {
	for s.Ref != "" || len(s.AllOf) == 1 {
		if s.Ref == "" {
			s = s.AllOf[0]
			continue
		}
		s = c.known[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	if len(s.OneOf) > 0 {
		for _, one := range s.OneOf {
			if len(c.check(one, value, path)) == 0 {
				return nil
			}
		}
		return []string{fmt.Sprintf("%s: %v is of no type that is allowed there", path, value)}
	}
	wrong := []string{fmt.Sprintf("%s: %#v, want %s", path, value, s.Type)}
	switch value := value.(type) {
	case map[string]any:
		if s.Type == "object" {
			return c.object(s, value, path)
		}
	case []any:
		if s.Type == "array" {
			return c.list(s, value, path)
		}
	case string:
		if s.Type == "string" {
			return nil
		}
	case bool:
		if s.Type == "boolean" {
			return nil
		}
	case int64, float64:
		if s.Type == "integer" || s.Type == "number" {
			return nil
		}
	}
	if s.Type == "" { // anything
		return nil
	}
	return wrong
}

func (c checker) object(s *schema, value map[string]any, path string) (problems []string) {
	for _, name := range s.Required {
		if _, ok := value[name]; !ok {
			problems = append(problems, fmt.Sprintf("%s.%s is missing", path, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		field := s.Properties[name]
		if field == nil {
			field = s.AdditionalProperties
		}
		if field == nil {
			problems = append(problems, fmt.Sprintf("%s.%s: there is no such field", path, name))
			continue
		}
		problems = append(problems, c.check(field, value[name], path+"."+name)...)
	}
	return problems
}

func (c checker) list(s *schema, value []any, path string) (problems []string) {
	for i, item := range value {
		problems = append(problems, c.check(s.Items, item, fmt.Sprintf("%s[%d]", path, i))...)
	}
	return problems
}

// Kinds of the Prometheus operator have no schema in Kubernetes.
func foreign(object *unstructured.Unstructured) bool {
	return object.GroupVersionKind().Group == "monitoring.coreos.com"
}

func TestObjectsAreWhatKubernetesTakes(t *testing.T) {
	helmProgram(t)
	for _, version := range versions(t) {
		t.Run(version, func(t *testing.T) {
			known := newSchemas(t, version)
			for name, set := range setsFor(t, version) {
				t.Run(name, func(t *testing.T) {
					for _, object := range set.objects(t) {
						if foreign(object) {
							continue
						}
						for _, problem := range known.check(object) {
							t.Errorf("%s %s: %s", object.GetKind(), object.GetName(), problem)
						}
					}
				})
			}
		})
	}
}

// The test above is worth nothing if it overlooks mistakes.
func TestMistakesInObjectsAreSeen(t *testing.T) {
	known := newSchemas(t, slices.Max(versions(t)))
	object := sets()["defaults"].objects(t).get(t, "DaemonSet", "eks-hybrid-dra-kubelet-plugin")
	container, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
	if err != nil {
		t.Fatal(err)
	}
	first, ok := container[0].(map[string]any)
	if !ok {
		t.Fatalf("%T", container[0])
	}
	first["imagePullPolice"], first["command"] = "Always", "x"
	delete(first, "name")
	if err := unstructured.SetNestedSlice(object.Object, container, "spec", "template", "spec", "containers"); err != nil {
		t.Fatal(err)
	}
	const at = ".spec.template.spec.containers[0]"
	want := []string{at + ".name is missing", at + `.command: "x", want array`, at + ".imagePullPolice: there is no such field"}
	if got := known.check(object); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
