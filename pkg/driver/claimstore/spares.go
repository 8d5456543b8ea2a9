package claimstore

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

const (
	// sparesDir has files without meaning, which are never read.
	sparesDir = "spare"
	// MaxSpares is how many files one instance keeps to write records into, of
	// one block of the file system each.
	MaxSpares = 32
)

// spares are the files of deleted records, into which later ones are written.
// On a disk that is mounted with "discard", deleting a file that has reached
// the disk takes about a millisecond, and one such deletion waits for the
// other; renaming one takes some microseconds.
//
// A file must not be written to as long as a crash of the machine could bring
// back the name that it had as a record. So a spare is fresh at first, and can
// be used when the folder of the records was synced after it was renamed.
type spares struct {
	dir string
	// instance keeps the names apart of those that several processes make.
	instance string

	mu sync.Mutex
	// made counts the spares of this instance. The fresh ones are the last of
	// them, oldest first.
	made   int
	fresh  []string
	usable []string
}

// openSpares finds the spares that earlier instances have left in dir. Claims
// is the folder of the records.
func openSpares(dir, claims string) (*spares, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the claim store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the claim store: %w", err)
	}
	s := &spares{dir: dir, instance: rand.Text()}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if !entry.Type().IsRegular() { // not ours
			continue
		}
		if len(s.usable) < MaxSpares {
			s.usable = append(s.usable, path)
		} else if err := wholefile.Remove(path); err != nil {
			return nil, fmt.Errorf("remove a spare file: %w", err)
		}
	}
	if len(s.usable) > 0 {
		if err := wholefile.SyncFolder(claims); err != nil {
			return nil, fmt.Errorf("sync the claim store: %w", err)
		}
	}
	return s, nil
}

// add makes a record's file a spare, or deletes it if there are enough.
func (s *spares) add(record string) error {
	if s.rename(record) {
		return nil
	}
	return os.Remove(record)
}

// rename tells whether the record's file is a spare now. It is not if there are
// enough, no room for one more name, or no such file or folder.
func (s *spares) rename(record string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fresh)+len(s.usable) >= MaxSpares {
		return false
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%s-%d", s.instance, s.made+1))
	if err := os.Rename(record, path); err != nil {
		return false
	}
	s.made++
	s.fresh = append(s.fresh, path)
	return true
}

// take gives a spare another name, if there is one that can have it.
func (s *spares) take(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.usable) > 0 {
		last := len(s.usable) - 1
		spare := s.usable[last]
		s.usable = s.usable[:last]
		// Another instance may have been faster. Any other failure is no reason
		// not to make a file anew.
		if err := os.Rename(spare, path); err == nil {
			return faultpoint.At(faultpoint.SpareTaken)
		}
	}
	return nil
}

// sync syncs the folder of the records. After that the spares that were made
// before can be used.
func (s *spares) sync(claims string) error {
	s.mu.Lock()
	made := s.made
	s.mu.Unlock()
	if err := wholefile.SyncFolder(claims); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Without those that were made in the meantime. Another sync may have dealt
	// with some of the others.
	n := max(0, len(s.fresh)-(s.made-made))
	s.usable = append(s.usable, s.fresh[:n]...)
	s.fresh = s.fresh[n:]
	return nil
}
