package main

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestOneFileHoldsAnImageForEachName(t *testing.T) {
	output := filepath.Join(t.TempDir(), "new", "image.tar")
	if err := run(context.Background(), output, imageNames()); err != nil {
		t.Fatal(err)
	}
	for _, n := range imageNames() {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		image, err := tarball.ImageFromPath(output, &tag)
		if err != nil {
			t.Fatalf("image %s: %v", n, err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatalf("configuration of %s: %v", n, err)
		}
		if diff := cmp.Diff([]string{search}, config.Config.Env); diff != "" {
			t.Errorf("environment of %s (-want +got):\n%s", n, diff)
		}
	}
}

func TestTheSameProgramMakesTheSameImage(t *testing.T) {
	first, err := pack([]byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := pack([]byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	got, err := second.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("digest %s at first, %s then", want, got)
	}
}
