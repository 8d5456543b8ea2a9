package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Write writes an image with one file, /<base name of program>, as its
// entrypoint. The same program gives the same bytes.
func Write(out io.Writer, reference, program string) error {
	type object = map[string]any
	entry := "/" + filepath.Base(program)
	layer, err := layerOf(program)
	if err != nil {
		return err
	}
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       object{"Entrypoint": []string{entry}},
		"rootfs":       object{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	if err != nil {
		return fmt.Errorf("encode the image's config: %w", err)
	}
	configName := sum(config) + ".json"
	manifest, err := json.Marshal([]object{{
		"Config": configName, "RepoTags": []string{reference}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("encode the image's manifest: %w", err)
	}
	w := tar.NewWriter(out)
	for _, file := range []struct {
		name    string
		content []byte
	}{{configName, config}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		if err := add(w, file.name, 0o644, file.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("finish the image: %w", err)
	}
	return nil
}

func layerOf(program string) ([]byte, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the image's program: %w", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := add(w, filepath.Base(program), 0o755, content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("finish the image's layer: %w", err)
	}
	return layer.Bytes(), nil
}

func add(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s to the image: %w", name, err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("add %s to the image: %w", name, err)
	}
	return nil
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}
