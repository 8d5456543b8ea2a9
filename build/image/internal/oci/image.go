package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Description is what an image says about itself.
type Description struct {
	Platform v1.Platform
	// Labels are annotations in the sense of the OCI image specification,
	// such as org.opencontainers.image.title.
	Labels map[string]string
	// Env are variables of the form NAME=value.
	Env []string
}

// NewImage returns an image of the layers, lowest first. It runs as root and
// names no command: whoever runs it does.
func NewImage(d Description, layers ...v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, fmt.Errorf("stacking the layers of the image: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of the new image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = d.Platform.OS, d.Platform.Architecture, d.Platform.Variant
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = v1.Config{User: "0:0", WorkingDir: "/", Env: d.Env, Labels: d.Labels}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, fmt.Errorf("setting the configuration of the new image: %w", err)
	}
	return image, nil
}

// Save writes the image under the tag to a tar file as "docker save" would,
// which container runtimes and engines import. The file is replaced whole or
// not at all.
func Save(file, tag string, image v1.Image) (err error) {
	ref, err := name.NewTag(tag)
	if err != nil {
		return fmt.Errorf("reading the image tag %q: %w", tag, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", file, err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("saving the image to %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	if err := errors.Join(tarball.Write(ref, image, temporary), temporary.Chmod(0o644), temporary.Close()); err != nil {
		return fmt.Errorf("saving the image to %s: %w", file, err)
	}
	if err := os.Rename(temporary.Name(), file); err != nil {
		return fmt.Errorf("saving the image to %s: %w", file, err)
	}
	return nil
}

// Push pushes the image to the registry that ref names, with the credentials
// of "docker login", and returns the reference with its digest.
func Push(ctx context.Context, ref string, image v1.Image) (string, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", fmt.Errorf("reading the image reference %q: %w", ref, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("pushing the image to %s: %w", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("reading the digest of the pushed image: %w", err)
	}
	return tag.Context().Digest(digest.String()).String(), nil
}
