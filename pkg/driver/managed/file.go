package managed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

const (
	stateFile  = "allocators.json"
	lockFile   = "allocators.lock"
	tempSuffix = ".tmp"
	asideDir   = "unreadable"
	// formatVersion is what this release writes. Files of any version are read.
	formatVersion = 1
)

func (a *Allocators) path() string { return filepath.Join(a.options.Dir, stateFile) }

// exists tells whether there is a state file, readable or not.
func (a *Allocators) exists() bool {
	_, err := os.Lstat(a.path())
	return !errors.Is(err, fs.ErrNotExist)
}

// load returns what is on disk, or nil if there is nothing.
func (a *Allocators) load() (*state, error) {
	data, err := os.ReadFile(a.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wholefile.ReadError(a.path(), err)
	}
	s, err := decode(data)
	if err != nil {
		return nil, &wholefile.UnreadableError{Path: a.path(), Err: err}
	}
	if s.BootID != a.options.BootID {
		// Times of another boot mean nothing now.
		for name, e := range s.Devices {
			e.Since = 0
			s.Devices[name] = e
		}
	}
	return s, nil
}

// decode returns the state in a file.
func decode(data []byte) (*state, error) {
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	if s.Version < 1 || s.Decider < 1 {
		return nil, fmt.Errorf("version %d of decider %d: want at least 1 each", s.Version, s.Decider)
	}
	for name, e := range s.Devices {
		if e.Allocator != Controller && e.Allocator != Settling || e.Since < 0 {
			return nil, fmt.Errorf("device %q has allocator %q since %d: want %s, or %s with a time", name, e.Allocator, e.Since, Controller, Settling)
		}
	}
	return s, nil
}

// save writes the state such that a reader, or a crash of the machine, finds the
// old one or the new one, whole. It writes nothing that is there already.
func (a *Allocators) save(s *state) error {
	s.Version, s.BootID = max(s.Version, formatVersion), a.options.BootID
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode who gives this node's devices: %w", err)
	}
	if there, err := os.ReadFile(a.path()); err == nil && bytes.Equal(there, data) {
		return nil
	}
	if err := a.write(data); err != nil {
		return fmt.Errorf("write who gives this node's devices: %w: see that %s can be written and has room", err, a.options.Dir)
	}
	return nil
}

func (a *Allocators) write(data []byte) error {
	err := wholefile.Replace(a.path(), data, wholefile.Options{
		Temp: a.path() + tempSuffix, Mode: 0o600, Sync: wholefile.ContentAndName,
		Written: func() error { return a.options.At(faultpoint.AllocatorsHalfWritten) },
	})
	if err != nil {
		return err
	}
	return a.options.At(faultpoint.AllocatorsWritten)
}

// setAside moves a file that makes no sense to where an admin can look at it,
// and returns its new path.
func (a *Allocators) setAside() (string, error) {
	path, err := wholefile.SetAside(a.path(), filepath.Join(a.options.Dir, asideDir))
	if err != nil {
		return "", fmt.Errorf("set %s aside: %w: see that %s can be written and has room", a.path(), err, a.options.Dir)
	}
	return path, a.options.At(faultpoint.AllocatorsSetAside)
}
