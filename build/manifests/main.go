package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// release is what the plain manifests call everything, and their namespace.
const release = "eks-hybrid-dra"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

type options struct {
	helm, chart, output, page string
	check                     bool
}

// folder is one that gets rendered manifests.
type folder struct {
	path string
	// values are arguments of helm.
	values []string
	// wanted tells which templates belong here, by their paths in the chart.
	wanted func(template string) bool
	// kustomization is the beginning of the folder's kustomization.yaml.
	kustomization string
}

func run(ctx context.Context, args []string, messages io.Writer) error {
	var o options
	flags := flag.NewFlagSet("manifests", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&o.helm, "helm", "bin/helm", "`file` of helm")
	flags.StringVar(&o.chart, "chart", "deployments/helm/eks-hybrid-dra", "`folder` of the chart")
	flags.StringVar(&o.output, "output", "deployments/manifests", "`folder` of the manifests")
	flags.StringVar(&o.page, "page", "docs/chart.md", "`file` with the table of the chart's values")
	flags.BoolVar(&o.check, "check", false, "write nothing, and fail if something is out of date")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("reading the command line: %w", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var stale []string
	for _, f := range folders(o.output) {
		files, err := render(ctx, o, f)
		if err != nil {
			return err
		}
		changed, err := f.update(files, o.check)
		if err != nil {
			return err
		}
		stale = append(stale, changed...)
	}
	table, err := tabulate(o.page, o.chart)
	if err != nil {
		return err
	}
	changed, err := put(o.page, table, o.check)
	if err != nil {
		return err
	}
	if changed {
		stale = append(stale, o.page)
	}
	if o.check && len(stale) > 0 {
		return fmt.Errorf("out of date: %s; run \"make manifests\", and change the chart's templates rather than these files", strings.Join(stale, ", "))
	}
	return nil
}

// render returns the files of a folder with their contents.
func render(ctx context.Context, o options, f folder) (map[string][]byte, error) {
	args := append([]string{"template", release, o.chart, "--namespace", release, "--no-hooks"}, f.values...)
	command := exec.CommandContext(ctx, o.helm, args...)
	var messages bytes.Buffer
	command.Stderr = &messages
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", o.helm, strings.Join(args, " "), err, strings.TrimSpace(messages.String()))
	}
	files, err := split(string(out), f.wanted)
	if err != nil {
		return nil, err
	}
	files["kustomization.yaml"] = f.kustomize(files)
	return files, nil
}

// update writes what has changed, removes what was rendered once and is not any
// more, and returns the names of both. With check it only returns them.
func (f folder) update(files map[string][]byte, check bool) ([]string, error) {
	var changed []string
	for name, content := range files {
		path := filepath.Join(f.path, name)
		is, err := put(path, content, check)
		if err != nil {
			return nil, err
		}
		if is {
			changed = append(changed, path)
		}
	}
	gone, err := f.leftover(files)
	if err != nil {
		return nil, err
	}
	for _, path := range gone {
		changed = append(changed, path)
		if check {
			continue
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing what is not rendered any more: %w", err)
		}
	}
	slices.Sort(changed)
	return changed, nil
}

// put writes a file if that changes it, but for check, and tells whether it does.
func put(path string, content []byte, check bool) (bool, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading what was rendered before: %w", err)
	}
	if err == nil && bytes.Equal(old, content) {
		return false, nil
	}
	if check {
		return true, nil
	}
	if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // to be read by all
		return false, fmt.Errorf("writing what is rendered: %w", err)
	}
	return true, nil
}

// leftover are files that were rendered once and are not any more.
func (f folder) leftover(files map[string][]byte) ([]string, error) {
	entries, err := filepath.Glob(filepath.Join(f.path, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("looking for what was rendered before: %w", err)
	}
	var gone []string
	for _, path := range entries {
		if _, ok := files[filepath.Base(path)]; ok {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("looking for what was rendered before: %w", err)
		}
		if bytes.HasPrefix(content, []byte(header)) {
			gone = append(gone, path)
		}
	}
	return gone, nil
}
