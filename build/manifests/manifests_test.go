package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDocumentsGoToFilesOfTheirTemplates(t *testing.T) {
	const rendered = `---
# Source: eks-hybrid-dra/templates/controller/rbac.yaml
# Why.
kind: A
metadata:
  labels:
    app.kubernetes.io/name: x
    app.kubernetes.io/version: "dev"
    app.kubernetes.io/managed-by: Helm
    helm.sh/chart: eks-hybrid-dra-0.1.0
---
# Source: eks-hybrid-dra/templates/registry-trust/rbac.yaml
kind: B
---
# Source: eks-hybrid-dra/templates/controller/rbac.yaml
kind: C

`
	want := map[string][]string{
		"base":           {"controller-rbac.yaml", header + "# Why.\nkind: A\nmetadata:\n  labels:\n    app.kubernetes.io/name: x\n---\nkind: C\n"},
		"registry-trust": {"registry-trust-rbac.yaml", header + "kind: B\n"},
	}
	got := map[string][]string{}
	for i, name := range []string{"base", "registry-trust"} {
		files, err := split(rendered, folders("")[i].wanted)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range slices.Sorted(maps.Keys(files)) {
			got[name] = append(got[name], file, string(files[file]))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestOnlyWhatWasRenderedIsRemoved(t *testing.T) {
	f := folder{path: t.TempDir()}
	for name, content := range map[string]string{"old.yaml": header + "kind: A\n", "mine.yaml": "kind: B\n", "same.yaml": header} {
		if err := os.WriteFile(filepath.Join(f.path, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{"same.yaml": []byte(header), "new.yaml": []byte(header)}
	want := []string{filepath.Join(f.path, "new.yaml"), filepath.Join(f.path, "old.yaml")}
	for _, check := range []bool{true, false} {
		changed, err := f.update(files, check)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, changed); diff != "" {
			t.Errorf("changed, with check %t (-want +got):\n%s", check, diff)
		}
	}
	left, err := filepath.Glob(filepath.Join(f.path, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if diff := cmp.Diff([]string{"mine.yaml", "new.yaml", "same.yaml"}, left); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestValuesAreThoseWithACommentOfTheirOwn(t *testing.T) {
	const content = `# About the file.

# What it is called.
name: x
group:
  # How many.
  # At least one.
  count: 2
  # Which nodes.
  selector:
    a: b
  # In a group with a comment.
  inner:
    # Whether | not.
    on: true
`
	got, err := parseValues([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	want := []value{
		{"name", "What it is called.", `"x"`},
		{"group.count", "How many.\nAt least one.", "2"},
		{"group.selector", "Which nodes.", `{"a":"b"}`},
		{"group.inner.on", "Whether | not.", "true"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(value{})); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	_, err = parseValues([]byte("# Explained.\na: 1\nb: 2\nc:\n  d: []\n"))
	const message = "b has no comment that says what it means\nc.d has no comment that says what it means"
	if err == nil || err.Error() != message {
		t.Errorf("got %v, want %q", err, message)
	}
}
