package attachsocket

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyRootMayAsk(t *testing.T) {
	if err := allow(0); err != nil {
		t.Error(err)
	}
	if err := allow(1000); err == nil || !strings.Contains(err.Error(), "user 1000") {
		t.Errorf("want an error that names the user, got %v", err)
	}
}

func TestDescriptors(t *testing.T) {
	open := func() int {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	file, err := descriptor(unix.UnixRights(open()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Identity(file); err == nil || !strings.Contains(err.Error(), "not a network namespace") {
		t.Errorf("/dev/null is taken for a network namespace: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	fds := []int{open(), open()}
	if _, err := descriptor(unix.UnixRights(fds...)); err == nil || !strings.Contains(err.Error(), "2 descriptors") {
		t.Errorf("two descriptors: %v", err)
	}
	for _, fd := range fds {
		if err := unix.Close(fd); !errors.Is(err, unix.EBADF) {
			t.Errorf("a descriptor was left open: %v", err)
		}
	}
	if _, err := descriptor(nil); err == nil || !strings.Contains(err.Error(), "without a descriptor") {
		t.Errorf("no descriptor: %v", err)
	}
}

// Paths of sockets may have 107 characters only, and the driver's name is the
// user's choice.
func TestLongPaths(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path, "6d1a1bdc-b2ff-4aa4-9b6f-6a3f5b6f4d2e")
	if err != nil {
		t.Fatal(err)
	}
	names, err := Sockets(path)
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	removed, err := RemoveDead(t.Context(), path)
	if err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	names, err := Sockets(path)
	if err != nil || names != nil {
		t.Errorf("%v, %v", names, err)
	}
	removed, err := RemoveDead(t.Context(), path)
	if err != nil || removed != nil {
		t.Errorf("%v, %v", removed, err)
	}
}
