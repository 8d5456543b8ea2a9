package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file is not taken for broken because the machine is short of something.
func TestReadError(t *testing.T) {
	for err, broken := range map[error]bool{
		unix.EMFILE: false, unix.ENFILE: false, unix.ENOMEM: false, unix.EINTR: false, unix.EAGAIN: false,
		unix.EIO: true, unix.EISDIR: true, errors.New("unexpected end of JSON input"): true,
	} {
		got := ReadError("/state/a.json", &fs.PathError{Op: "read", Path: "/state/a.json", Err: err})
		var unreadable *UnreadableError
		if errors.As(got, &unreadable) != broken || !errors.Is(got, err) || !strings.Contains(got.Error(), "/state/a.json") {
			t.Errorf("%v: got %v, want it broken: %t", err, got, broken)
		}
	}
}

func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	path, folder := filepath.Join(dir, "a.json"), filepath.Join(dir, "unreadable")
	seen := map[string]bool{}
	for _, content := range []string{"one", "two"} {
		put(t, dir, map[string]string{"a.json": content})
		aside, err := SetAside(path, folder)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(aside); err != nil || string(got) != content || filepath.Dir(aside) != folder || seen[aside] {
			t.Errorf("%s has %q, %v; want %q", aside, got, err, content)
		}
		seen[aside] = true
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
