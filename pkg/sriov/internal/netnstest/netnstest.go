// Package netnstest makes network namespaces for tests.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// New makes a network namespace that ends with the test, which is skipped where it
// may not.
func New(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		file, err := unshared()
		done <- result{file, err}
	}()
	made := <-done
	if made.err != nil {
		t.Fatal(made.err)
	}
	t.Cleanup(func() { _ = made.file.Close() }) // a test may have closed it
	return made.file
}

// Path is by what others open the namespace.
func Path(netns *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", netns.Fd()) }

// unshared makes a network namespace. The thread goes back to its own one, for
// the first thread of a program never ends and would keep the new one.
func unshared() (_ *os.File, err error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err := errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)); err != nil {
		return nil, err
	}
	runtime.UnlockOSThread()
	return file, nil
}
