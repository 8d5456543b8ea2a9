package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const search = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// pack makes an image of one layer with the program under its names. The same
// program always makes the same image: it holds no times.
func pack(binary []byte) (v1.Image, error) {
	content, err := filesystem(binary)
	if err != nil {
		return nil, fmt.Errorf("packing the file system: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("making the layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("adding the layer: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture = runtime.GOARCH
	config.Config.Env = []string{search}
	return mutate.ConfigFile(image, config)
}

// filesystem is the image's root as a tar. It has the folders that the hooks of
// NVIDIA's toolkit expect in any image, though nothing lies in them.
func filesystem(binary []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, dir := range []string{"etc", "tmp", "usr", "usr/bin", "usr/lib64", "var", "var/run"} {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}
		if dir == "tmp" {
			header.Mode = 0o1777
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/workload", Mode: 0o755, Size: int64(len(binary))}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	for _, name := range []string{"cat", "ip", "ls", "ping", "python", "sleep", "stubborn"} {
		link := &tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/bin/" + name, Linkname: "workload", Mode: 0o777}
		if err := w.WriteHeader(link); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
