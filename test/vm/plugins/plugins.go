package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
)

// Names of the plugins, which are those of their programs and of the folders here.
const (
	Multus = "multus"
	SRIOV  = "sriov"
)

// self is where this package is.
const self = "github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/plugins"

// flags make a static program that is the same wherever the clone is.
func flags() []string { return []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w"} }

// Ensure builds a plugin unless the cache has it, and returns the path of its
// program. It has to run in a clone of the repository. Out gets a line about a
// build, which takes minutes at first.
func Ensure(ctx context.Context, name string, out io.Writer) (string, error) {
	module, err := command(ctx, "", "list", "-f", "{{.Dir}}", self)
	if err != nil {
		return "", fmt.Errorf("look for the sources of the CNI plugin %s (in a clone of the repository?): %w", name, err)
	}
	module = filepath.Join(module, name)
	key, err := contentKey(ctx, module)
	if err != nil {
		return "", fmt.Errorf("tell whether the cache has the CNI plugin %s: %w", name, err)
	}
	dir, err := cache.Dir()
	if err != nil {
		return "", err
	}
	path, err := cache.Ensure(dir, name+"-"+key, func(partial string) error {
		start := time.Now()
		fmt.Fprintf(out, "Building the CNI plugin %s\n", name)
		_, err := command(ctx, module, append(append([]string{"build"}, flags()...), "-o", filepath.Join(partial, name), "tool")...)
		if err != nil {
			return fmt.Errorf("build the CNI plugin %s: %w", name, err)
		}
		fmt.Fprintf(out, "Built it in %.0fs\n", time.Since(start).Seconds())
		return nil
	})
	return filepath.Join(path, name), err
}

// contentKey stands for all that a build depends on: the module's files name every
// source by its checksum.
func contentKey(ctx context.Context, module string) (string, error) {
	version, err := command(ctx, module, "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	parts := append(flags(), version)
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, file))
		if err != nil {
			return "", err
		}
		parts = append(parts, string(content))
	}
	return cache.Key(parts...), nil
}

// command runs go in a folder; empty is the working one.
func command(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOWORK=off")
	output, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(output)), err
}
