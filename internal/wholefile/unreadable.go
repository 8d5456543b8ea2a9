package wholefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// UnreadableError is a file that is there but makes no sense.
type UnreadableError struct {
	Path string
	Err  error
}

// Error names the file.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%s cannot be read: %v", e.Path, e.Err)
}

// Unwrap returns what is wrong with the file.
func (e *UnreadableError) Unwrap() error { return e.Err }

// ReadError tells a file that is broken, an [UnreadableError], from a machine that
// is short of something for a moment. The error is that of reading the file.
func ReadError(path string, err error) error {
	for _, passing := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.EAGAIN} {
		if errors.Is(err, passing) {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	return &UnreadableError{Path: path, Err: err}
}

// SetAside moves a file that makes no sense out of the way, into a folder where an
// admin can look at it, and returns its new path, which nobody else has. The folder
// is made where it is missing.
func SetAside(path, folder string) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	aside := filepath.Join(folder, filepath.Base(path)+"."+time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, nil
}
