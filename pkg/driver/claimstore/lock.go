package claimstore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// lockRetry is how often a lock that another process holds is tried again.
// That happens only while two instances work on the same claim.
const lockRetry = 5 * time.Millisecond

// locks gives out one lock for each claim, valid among goroutines and
// processes. Among processes it is a lock on one byte of one file, at a place
// derived from the claim's UID: nothing has to be created or cleaned up for a
// claim, and the kernel drops the lock of a process that dies.
type locks struct {
	file *os.File

	mu   sync.Mutex
	held map[types.UID]chan struct{}
}

func newLocks(path string) (*locks, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	return &locks{file: file, held: map[types.UID]chan struct{}{}}, nil
}

// lock waits until no other goroutine or process has the claim, or ctx is
// done.
func (l *locks) lock(ctx context.Context, uid types.UID) (func(), error) {
	free, err := l.lockHere(ctx, uid)
	if err != nil {
		return nil, err
	}
	for {
		err := l.fcntl(uid, unix.F_WRLCK)
		if err == nil {
			return func() {
				// Unlocking a range that we hold cannot fail.
				_ = l.fcntl(uid, unix.F_UNLCK)
				free()
			}, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			free()
			return nil, fmt.Errorf("lock %s for claim %s: %w", l.file.Name(), uid, err)
		}
		select {
		case <-ctx.Done():
			free()
			return nil, fmt.Errorf("claim %s is being worked on by another instance of the plugin: %w", uid, context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}

func (l *locks) lockHere(ctx context.Context, uid types.UID) (func(), error) {
	for {
		l.mu.Lock()
		busy, ok := l.held[uid]
		if !ok {
			done := make(chan struct{})
			l.held[uid] = done
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, uid)
				l.mu.Unlock()
				close(done)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("claim %s is being worked on by an earlier call: %w", uid, context.Cause(ctx))
		case <-busy:
		}
	}
}

func (l *locks) fcntl(uid types.UID, kind int16) error {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(uid)) // never fails
	// A call that hung may end after the store was closed: the number of the file
	// may then be another one's.
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	var locked error
	err = conn.Control(func(fd uintptr) {
		locked = unix.FcntlFlock(fd, unix.F_OFD_SETLK, &unix.Flock_t{
			Type:  kind,
			Start: int64(hash.Sum64() >> 2), // room for start + length in an int64
			Len:   1,
		})
	})
	return errors.Join(err, locked)
}
