package render

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../../.."
	chart = root + "/deployments/helm/eks-hybrid-dra"
)

// release is one rendering of the chart.
type release struct {
	// name and namespace are eks-hybrid-dra if they are not given.
	name, namespace string
	// values are a file of values.
	values string
	// set are arguments of helm.
	set []string
}

// helmProgram is what HELM_BIN names, or what "make helm" has built.
func helmProgram(t *testing.T) string {
	t.Helper()
	program := os.Getenv("HELM_BIN")
	if program == "" {
		program = root + "/bin/helm"
		if _, err := os.Stat(program); err != nil {
			t.Skip("there is no helm to test the chart with: run \"make test-chart\", or \"make helm\" first")
		}
	}
	program, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// helm runs helm, and returns what it says if it fails.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return run(t, "", helmProgram(t), args...)
}

// run runs helm in a folder.
func run(t *testing.T, folder, program string, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = folder
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(messages.String()))
	}
	return out.String(), nil
}

func (r release) args(t *testing.T) []string {
	t.Helper()
	var args []string
	if r.values != "" {
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(r.values), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--values", file)
	}
	return append(args, r.set...)
}

// fullName is how names of the release's objects begin.
func (r release) fullName() string {
	if strings.Contains(r.values, "fullnameOverride: dgx") {
		return "dgx"
	}
	if r.name == "" || r.name == "eks-hybrid-dra" {
		return "eks-hybrid-dra"
	}
	if strings.Contains(r.name, "eks-hybrid-dra") {
		return r.name
	}
	return r.name + "-eks-hybrid-dra"
}

func (r release) where() (name, namespace string) {
	name, namespace = r.name, r.namespace
	if name == "" {
		name = "eks-hybrid-dra"
	}
	if namespace == "" {
		namespace = "eks-hybrid-dra"
	}
	return name, namespace
}

// text is everything that helm would apply.
func (r release) text(t *testing.T) (string, error) {
	t.Helper()
	name, namespace := r.where()
	return helm(t, append([]string{"template", name, chart, "--namespace", namespace}, r.args(t)...)...)
}

// objects are those that helm would apply.
func (r release) objects(t *testing.T) objects {
	t.Helper()
	text, err := r.text(t)
	if err != nil {
		t.Fatal(err)
	}
	var list objects
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &object.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(object.Object) > 0 {
			list = append(list, object)
		}
	}
	return list
}

type objects []*unstructured.Unstructured

func (o objects) has(kind, name string) bool {
	return slices.ContainsFunc(o, func(u *unstructured.Unstructured) bool { return u.GetKind() == kind && u.GetName() == name })
}

func (o objects) get(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	var names []string
	for _, object := range o {
		if object.GetKind() == kind {
			if object.GetName() == name {
				return object
			}
			names = append(names, object.GetName())
		}
	}
	t.Fatalf("there is no %s %s, but %q", kind, name, names)
	return nil
}

// into is get for objects of a Go type.
func into[T any](t *testing.T, list objects, kind, name string) *T {
	t.Helper()
	raw, err := list.get(t, kind, name).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	object := new(T)
	if err := yaml.UnmarshalStrict(raw, object); err != nil {
		t.Fatal(err)
	}
	return object
}
