package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const sources = "github.com/eks-hybrid-dra/eks-hybrid-dra/test/workload"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	output := flag.String("o", "bin/workload-image.tar", "file to write the image to")
	flag.Parse()
	if err := run(ctx, *output, imageNames()); err != nil {
		fmt.Fprintf(os.Stderr, "building the stand-in image: %v\n", err)
		os.Exit(1)
	}
}

// imageNames are the images that examples and tests name.
func imageNames() []string {
	return []string{
		"docker.io/library/busybox:1.36",
		"docker.io/nvidia/cuda:12.3.0-base-ubuntu22.04",
		"docker.io/pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
	}
}

// run builds the program, packs it, and writes the tar under all names.
func run(ctx context.Context, output string, names []string) error {
	binary, err := compile(ctx)
	if err != nil {
		return err
	}
	image, err := pack(binary)
	if err != nil {
		return err
	}
	return save(output, image, names)
}

// compile builds the static program and returns it.
func compile(ctx context.Context) (binary []byte, err error) {
	dir, err := os.MkdirTemp("", "workload-")
	if err != nil {
		return nil, fmt.Errorf("making a folder to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	target := filepath.Join(dir, "workload")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", target, sources)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compiling %s: %w\n%s", sources, err, out)
	}
	return os.ReadFile(target)
}

// save writes the image into one file under all names. The file appears only
// when it is whole.
func save(output string, image v1.Image, names []string) error {
	images := make(map[name.Tag]v1.Image, len(names))
	for _, n := range names {
		tag, err := name.NewTag(n)
		if err != nil {
			return fmt.Errorf("image name %q: %w", n, err)
		}
		images[tag] = image
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return fmt.Errorf("making the folder for %s: %w", output, err)
	}
	unfinished := output + ".unfinished"
	if err := tarball.MultiWriteToFile(unfinished, images); err != nil {
		return fmt.Errorf("writing %s: %w", unfinished, errors.Join(err, os.Remove(unfinished)))
	}
	if err := os.Rename(unfinished, output); err != nil {
		return fmt.Errorf("finishing %s: %w", output, err)
	}
	return nil
}
