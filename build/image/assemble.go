package main

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/oci"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/rootfs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/sharedlib"
)

// binary is a compiled program and its name in the image.
type binary struct {
	name string
	file string
}

// assemble makes an image with one layer for the base and one per program.
func assemble(ctx context.Context, platform v1.Platform, labels map[string]string, binaries []binary) (v1.Image, error) {
	architecture, err := rootfs.ArchitectureOf(platform)
	if err != nil {
		return nil, err
	}
	contents := make([][]oci.Entry, 1, len(binaries)+1)
	files := make([]string, 0, len(binaries))
	for _, b := range binaries {
		entry, err := rootfs.Program(b.name, b.file, architecture)
		if err != nil {
			return nil, err
		}
		contents = append(contents, []oci.Entry{entry})
		files = append(files, b.file)
	}
	libraries, err := librariesOf(ctx, files)
	if err != nil {
		return nil, err
	}
	contents[0] = rootfs.Base(libraries, architecture)

	layers := make([]v1.Layer, 0, len(contents))
	for _, entries := range contents {
		layer, err := oci.NewLayer(entries)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return oci.NewImage(oci.Description{
		Platform: platform,
		Labels:   labels,
		Env:      []string{"PATH=" + rootfs.BinDir},
	}, layers...)
}

func librariesOf(ctx context.Context, files []string) (sharedlib.Set, error) {
	cc, err := compilerCommand(ctx)
	if err != nil {
		return sharedlib.Set{}, err
	}
	find, err := sharedlib.FromCompiler(ctx, cc)
	if err != nil {
		return sharedlib.Set{}, err
	}
	return sharedlib.Closure(files, rootfs.AtRunTime(), find)
}
