package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// module is a folder to build in and the -mod mode to build it with.
type module struct {
	dir  string
	mode string
}

// module returns the folder of the part's module. For a Kubernetes version
// other than the pinned one it makes a module in the cache.
func (b *Builder) module(ctx context.Context, part Part) (module, error) {
	source := filepath.Join(b.Source, part.Dir)
	if part.Name != "kubernetes" || part.Version == DefaultKubernetesVersion {
		return module{dir: source, mode: "readonly"}, nil
	}
	program, err := os.ReadFile(filepath.Join(source, "main.go"))
	if err != nil {
		return module{}, fmt.Errorf("read the program that names the Kubernetes parts: %w", err)
	}
	dir := filepath.Join(b.Cache, "modules", "kubernetes-"+part.Version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return module{}, fmt.Errorf("make the folder of the module for %s: %w", part.Version, err)
	}
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return module{}, err
	}
	defer unlock()
	if err := writeIfChanged(filepath.Join(dir, "main.go"), program); err != nil {
		return module{}, err
	}
	// go build completes go.mod and go.sum, so a module that is there is kept.
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return module{dir: dir, mode: "mod"}, nil
	}
	upstream, err := upstreamModule(ctx, part.Version)
	if err != nil {
		return module{}, err
	}
	text, err := versionModule(part.Version, upstream)
	if err != nil {
		return module{}, err
	}
	return module{dir: dir, mode: "mod"}, writeIfChanged(filepath.Join(dir, "go.mod"), []byte(text))
}

// goMod is the part of `go mod edit -json` that is read here.
type goMod struct {
	Go      string
	Require []struct{ Path, Version string }
	Godebug []struct{ Key, Value string }
}

// upstreamModule returns the go.mod of k8s.io/kubernetes at a version.
func upstreamModule(ctx context.Context, version string) (goMod, error) {
	var download struct{ GoMod, Error string }
	out, err := output(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	if jsonErr := json.Unmarshal(out, &download); err != nil || jsonErr != nil {
		return goMod{}, fmt.Errorf("download k8s.io/kubernetes@%s (is there such a version?): %s %w", version, download.Error, errors.Join(err, jsonErr))
	}
	out, err = output(ctx, "go", "mod", "edit", "-json", download.GoMod)
	if err != nil {
		return goMod{}, fmt.Errorf("read the go.mod of k8s.io/kubernetes@%s: %w", version, err)
	}
	var mod goMod
	if err := json.Unmarshal(out, &mod); err != nil {
		return goMod{}, fmt.Errorf("decode the go.mod of k8s.io/kubernetes@%s: %w", version, err)
	}
	return mod, nil
}

// versionModule is the text of a go.mod that builds Kubernetes at a version.
// Kubernetes requires its staging modules at v0.0.0 and replaces them by
// folders, which only its own main module can do; here each is replaced by the
// published module of the same release (v1.36.3 is published as v0.36.3).
func versionModule(version string, upstream goMod) (string, error) {
	_, minor, patch, err := splitVersion(version)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/parts/kubernetes\n\ngo %s\n\n", upstream.Go)
	for _, debug := range upstream.Godebug {
		fmt.Fprintf(&b, "godebug %s=%s\n\n", debug.Key, debug.Value)
	}
	fmt.Fprintf(&b, "require k8s.io/kubernetes %s\n\nreplace (\n", version)
	staging := 0
	for _, require := range upstream.Require {
		if strings.HasPrefix(require.Path, "k8s.io/") && require.Version == "v0.0.0" {
			fmt.Fprintf(&b, "\t%s => %s v0.%s.%s\n", require.Path, require.Path, minor, patch)
			staging++
		}
	}
	if staging == 0 {
		return "", fmt.Errorf("the go.mod of k8s.io/kubernetes@%s names no staging module at v0.0.0; this layout is not known", version)
	}
	b.WriteString(")\n")
	return b.String(), nil
}

// contentKey names what goes into a build, in 12 hex digits.
func contentKey(ctx context.Context, part Part, dir string) (string, error) {
	goVersion, err := output(ctx, "go", "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", fmt.Errorf("ask go for its version: %w", err)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s%q%q%q%q%v%s", goVersion, part.Packages, part.Programs, part.Tags, part.LDFlags, part.CGO, part.Version)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read the part's folder: %w", err)
	}
	// A generated module is completed by the build itself; its version is its key.
	generated := part.Name == "kubernetes" && part.Version != DefaultKubernetesVersion
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, ".go") || (!generated && (name == "go.mod" || name == "go.sum")) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("read the part's sources: %w", err)
		}
		fmt.Fprintf(hash, "%s %d\n", name, len(content))
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

func writeIfChanged(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	// Outside any module: the question is not about the caller's folder.
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
