package parts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVersionModule(t *testing.T) {
	type requirement = struct{ Path, Version string }
	upstream := goMod{
		Go:      "1.25.0",
		Godebug: []struct{ Key, Value string }{{"default", "go1.25"}},
		Require: []requirement{
			{"github.com/spf13/cobra", "v1.10.0"},
			{"k8s.io/api", "v0.0.0"},
			{"k8s.io/klog/v2", "v2.130.1"},
			{"k8s.io/kubelet", "v0.0.0"},
		},
	}
	got, err := versionModule("v1.36.3", upstream)
	if err != nil {
		t.Fatal(err)
	}
	want := `module github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/parts/kubernetes

go 1.25.0

godebug default=go1.25

require k8s.io/kubernetes v1.36.3

replace (
	k8s.io/api => k8s.io/api v0.36.3
	k8s.io/kubelet => k8s.io/kubelet v0.36.3
)
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
	upstream.Require = nil
	if _, err := versionModule("v1.36.3", upstream); err == nil || !strings.Contains(err.Error(), "no staging module") {
		t.Errorf("without staging modules: got %v", err)
	}
}

func TestAllRefusesVersions(t *testing.T) {
	for _, version := range []string{"", "1.37.1", "v1.37", "v2.0.0", "v1.37.1-rc.0", "v1.x.1", "latest"} {
		if _, err := All(version); err == nil || !strings.Contains(err.Error(), version) || !strings.Contains(err.Error(), "v1.37.1") {
			t.Errorf("version %q: got error %v, want one that shows the form", version, err)
		}
	}
}

func TestSourcesOfAllParts(t *testing.T) {
	source, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	all, err := All(DefaultKubernetesVersion)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range all {
		if _, err := contentKey(context.Background(), part, filepath.Join(source, part.Dir)); err != nil {
			t.Errorf("%s: %v", part.Name, err)
		}
	}
}

// The versions in the table and those that the modules pin must not drift apart.
func TestVersionsArePinned(t *testing.T) {
	source, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	for dir, pin := range map[string]string{
		"runc": "opencontainers/runc ", "cni": "containernetworking/plugins ", "etcd": "go.etcd.io/etcd/server/v3 ",
		"containerd": "containerd/containerd/v2 ", "kubernetes": "k8s.io/kubernetes ",
	} {
		content, err := os.ReadFile(filepath.Join(source, "parts", dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		all, err := All(DefaultKubernetesVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range all {
			if part.Name == dir && !strings.Contains(string(content), pin+part.Version) {
				t.Errorf("parts/%s/go.mod does not pin %s%s", dir, pin, part.Version)
			}
		}
	}
}

func TestContentKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func(part Part) string {
		t.Helper()
		k, err := contentKey(context.Background(), part, dir)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write("go.mod", "module a\n")
	part := Part{Name: "a", Version: "v1"}
	first := key(part)
	write("README", "not part of the build")
	if key(part) != first {
		t.Error("a file that is not built changes the key")
	}
	part.Tags = []string{"seccomp"}
	if key(part) == first {
		t.Error("a build tag does not change the key")
	}
	part.Tags = nil
	write("main.go", "package main")
	if key(part) == first {
		t.Error("a new source file does not change the key")
	}
}

func TestFindSource(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"test/cluster/parts/kubernetes/go.mod", "test/cluster/pause/main.go"} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := filepath.Join(root, "test", "cluster")
	for _, start := range []string{root, filepath.Join(root, "bin"), want, filepath.Join(want, "parts", "kubernetes")} {
		if got, err := FindSource(start); err != nil || got != want {
			t.Errorf("from %s: got %q, %v; want %q", start, got, err, want)
		}
	}
	if _, err := FindSource(t.TempDir()); err == nil || !strings.Contains(err.Error(), "--source") {
		t.Errorf("elsewhere: got %v, want an error that names --source", err)
	}
}
