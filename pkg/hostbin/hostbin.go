// Package hostbin puts programs of our image where the host can run them. A
// container runtime runs CDI hooks on the host, which has no other way to get
// them.
package hostbin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Install makes target a copy of source that anyone may run. A program that is
// running, or about to be run, is never seen half-written, and one that is the
// same already is left alone.
func Install(source, target string) error {
	want, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("install %s on the host: %w", filepath.Base(target), err)
	}
	have, err := os.ReadFile(target)
	if err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("install %s on the host: %w", filepath.Base(target), err)
	}
	if err := replace(target, want); err != nil {
		return fmt.Errorf("install %s on the host: %w: see that its folder can be written and has room", target, err)
	}
	return nil
}

func replace(target string, content []byte) (err error) {
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the host's runtime goes through it as any user
		return err
	}
	// Two instances may install at the same time during an update, so each
	// writes a file of its own.
	temp, err := os.CreateTemp(dir, ".installing-"+filepath.Base(target)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, writeErr := temp.Write(content)
	if err := errors.Join(writeErr, temp.Chmod(0o755), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), target)
}
