package managed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that another instance holds is tried again. It
// holds it no longer than a small file takes to be written.
const lockRetry = 5 * time.Millisecond

// lock is a file of which each byte can be locked. The first one is held by
// whoever reads and writes the state; each other one by an instance as long as
// it lives, so that the byte's place is its number. The kernel drops the locks
// of a process that dies.
type lock struct {
	file *os.File
}

func openLock(path string) (*lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return &lock{file: file}, nil
}

// hold waits until nobody else works on the state.
func (l *lock) hold(ctx context.Context) (release func(), err error) {
	for {
		got, err := l.try(0)
		if err != nil {
			return nil, err
		}
		if got {
			return func() { l.drop(0) }, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another instance of the plugin: %w", context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}

// number takes a number that no living instance has, other than the last
// decider's.
func (l *lock) number(last int64) (int64, error) {
	for n := last + 1; ; n++ {
		got, err := l.try(n)
		if err != nil || got {
			return n, err
		}
	}
}

// alive tells whether an instance of that number lives, other than this one.
func (l *lock) alive(number int64) (bool, error) {
	ask := unix.Flock_t{Type: unix.F_WRLCK, Start: number, Len: 1}
	if err := unix.FcntlFlock(l.file.Fd(), unix.F_OFD_GETLK, &ask); err != nil {
		return false, err
	}
	return ask.Type != unix.F_UNLCK, nil
}

func (l *lock) try(at int64) (bool, error) {
	for {
		err := l.set(at, unix.F_WRLCK)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// drop unlocks a byte that we hold, which cannot fail.
func (l *lock) drop(at int64) { _ = l.set(at, unix.F_UNLCK) }

func (l *lock) set(at int64, kind int16) error {
	return unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1})
}
