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

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".installing-"

// Install makes target a copy of source that anyone may run. A program that is
// running, or about to be run, is never seen half-written, and one that is the
// same already is left alone. What an installation that was killed left is
// removed.
func Install(source, target string) error {
	want, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("install %s on the host: %w", filepath.Base(target), err)
	}
	if err := install(want, target); err != nil {
		return fmt.Errorf("install %s on the host: %w: see that its folder can be written and has room", target, err)
	}
	return nil
}

func install(want []byte, target string) (err error) {
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the host's runtime goes through it as any user
		return err
	}
	// During an update two instances may install at the same time.
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := removeLeftovers(dir, filepath.Base(target)); err != nil {
		return err
	}
	have, err := os.ReadFile(target)
	if err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return wholefile.Replace(target, want, wholefile.Options{
		Temp: filepath.Join(dir, tempPrefix+filepath.Base(target)), Mode: 0o755, Sync: wholefile.Content,
	})
}

// lock waits until nobody else installs into the folder. The kernel drops the
// lock of a process that dies.
func lock(dir string) (unlock func() error, err error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX)
		if err == nil {
			return folder.Close, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), folder.Close())
		}
	}
}

func removeLeftovers(dir, name string) error {
	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+name+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range left {
		errs = append(errs, wholefile.Remove(path))
	}
	return errors.Join(errs...)
}
