package vfstate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const (
	fileSuffix = ".json"
	lockSuffix = ".lock"
	tempSuffix = ".tmp"
	asideDir   = "unreadable"
	// lockRetry is how often a lock that is held is tried again.
	lockRetry = 5 * time.Millisecond
)

// Store is the journals of one node, a file for each VF. Several processes may
// use it: whoever reads or changes a journal holds the VF's lock.
type Store struct {
	dir string
}

// New returns the store in a folder, which is made when it is needed.
func New(dir string) *Store { return &Store{dir: dir} }

// UnreadableError is a journal that is there but makes no sense.
type UnreadableError = wholefile.UnreadableError

// Lock waits until nobody else, here or in another process, works on the VF. It
// fails when ctx is done first. The kernel drops the lock of a process that
// dies.
func (s *Store) Lock(ctx context.Context, a topology.Address) (unlock func(), err error) {
	return s.lock(ctx, a.String())
}

// LockGroup is [Store.Lock] for an IOMMU group. It is taken after a VF's lock,
// never before.
func (s *Store) LockGroup(ctx context.Context, group string) (unlock func(), err error) {
	return s.lock(ctx, "group-"+group)
}

func (s *Store) lock(ctx context.Context, name string) (func(), error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, s.hint(fmt.Errorf("lock the journal of %s: %w", name, err))
	}
	file, err := os.OpenFile(filepath.Join(s.dir, name+lockSuffix), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, s.hint(fmt.Errorf("lock the journal of %s: %w", name, err))
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Closing the file is what unlocks, and nothing was written to it.
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the journal of %s: %w", name, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s is being worked on by another call: %w", name, context.Cause(ctx)), file.Close())
		case <-time.After(lockRetry):
		}
	}
}

// Load returns the journal of a VF, or nil if it has none. One that makes no
// sense is an [UnreadableError].
func (s *Store) Load(a topology.Address) (*Journal, error) {
	path := s.path(a)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wholefile.ReadError(path, err)
	}
	j, err := decode(data, a)
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	return j, nil
}

// Save writes a journal such that a reader, or a crash of the machine, finds
// the old one or the new one, whole.
func (s *Store) Save(a topology.Address, j *Journal) error {
	j.Version = max(j.Version, FormatVersion)
	j.Device = a.String()
	data, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode the journal of VF %s: %w", a, err)
	}
	if err := s.write(s.path(a), data); err != nil {
		return s.hint(fmt.Errorf("write the journal of VF %s: %w", a, err))
	}
	return nil
}

func (s *Store) write(path string, data []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return wholefile.Replace(path, data, wholefile.Options{
		Temp: path + tempSuffix, Mode: 0o600, Sync: wholefile.ContentAndName,
		Written: func() error { return faultpoint.At(faultpoint.VFJournalHalfWritten) },
	})
}

// Delete removes a journal, and what an interrupted write has left of one. None
// is fine.
func (s *Store) Delete(a topology.Address) error {
	for _, path := range []string{s.path(a) + tempSuffix, s.path(a)} {
		if err := wholefile.Remove(path); err != nil {
			return s.hint(fmt.Errorf("delete the journal of VF %s: %w", a, err))
		}
	}
	return nil
}

// SetAside moves a journal that makes no sense out of the way, into a folder
// where an admin can look at it, and returns its new path.
func (s *Store) SetAside(a topology.Address) (string, error) {
	path, err := wholefile.SetAside(s.path(a), filepath.Join(s.dir, asideDir))
	if err != nil {
		return "", s.hint(fmt.Errorf("set the journal of VF %s aside: %w", a, err))
	}
	return path, nil
}

// List returns the VFs that have a journal, readable or not.
func (s *Store) List() ([]topology.Address, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the journals of VFs: %w", err)
	}
	var addresses []topology.Address
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), fileSuffix)
		if !ok {
			continue
		}
		if address, err := topology.ParseAddress(name); err == nil {
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
}

func (s *Store) path(a topology.Address) string {
	return filepath.Join(s.dir, a.String()+fileSuffix)
}

// hint adds the way out to an error of writing.
func (s *Store) hint(err error) error {
	return fmt.Errorf("%w: see that %s can be written and has room", err, s.dir)
}
