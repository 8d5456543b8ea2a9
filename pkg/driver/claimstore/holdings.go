package claimstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// Take makes the holding's claim the holder of a physical thing, and returns
// nil. If the claim has it already, that is fine too. If another claim has it,
// Take changes nothing and returns that claim's holding. A holding that cannot
// be read is an [UnreadableError].
//
// A holding need not survive a crash of the machine, after which no container
// uses anything, so it is not synced to disk.
func (s *Store) Take(thing string, h Holding) (*Holding, error) {
	h.Version = max(h.Version, FormatVersion)
	data, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the holding of %s: %w", thing, err)
	}
	path := s.holdingPath(thing)
	temp := filepath.Join(filepath.Dir(path), tempPrefix+thing+"@"+string(h.Claim.UID)+fileSuffix)
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return nil, errors.Join(s.cannotWrite(fmt.Errorf("take %s for claim %s: %w", thing, h.Claim, err)), removeIfThere(temp))
	}
	if err := faultpoint.At(faultpoint.HoldingWritten); err != nil {
		return nil, errors.Join(err, removeIfThere(temp))
	}
	// A link, unlike a rename, never replaces: of all who try, one has it.
	err = os.Link(temp, path)
	if removeErr := removeIfThere(temp); removeErr != nil {
		return nil, s.cannotWrite(fmt.Errorf("take %s for claim %s: %w", thing, h.Claim, removeErr))
	}
	switch {
	case err == nil:
		return nil, nil
	case !errors.Is(err, fs.ErrExist):
		return nil, s.cannotWrite(fmt.Errorf("take %s for claim %s: %w", thing, h.Claim, err))
	}
	holder, err := s.Holder(thing)
	if err != nil {
		return nil, err
	}
	if holder == nil { // given back in between
		return s.Take(thing, h)
	}
	if holder.Claim.UID == h.Claim.UID {
		return nil, nil
	}
	return holder, nil
}

// Holder returns who has a physical thing, or nil if nobody has. A holding
// that cannot be read is an [UnreadableError].
func (s *Store) Holder(thing string) (*Holding, error) {
	path := s.holdingPath(thing)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	h, err := decodeHolding(data)
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	return h, nil
}

// Holds tells whether the claim has all of the things.
func (s *Store) Holds(uid types.UID, things []string) (bool, error) {
	for _, thing := range things {
		holder, err := s.Holder(thing)
		if err != nil {
			return false, err
		}
		if holder == nil || holder.Claim.UID != uid {
			return false, nil
		}
	}
	return true, nil
}

// Free gives a physical thing back, if the claim is the one that has it.
func (s *Store) Free(thing string, uid types.UID) error {
	holder, err := s.Holder(thing)
	if err != nil {
		return err
	}
	if holder == nil || holder.Claim.UID != uid {
		return nil
	}
	if err := removeIfThere(s.holdingPath(thing)); err != nil {
		return s.cannotWrite(fmt.Errorf("give back %s: %w", thing, err))
	}
	s.mu.Lock()
	close(s.freed)
	s.freed = make(chan struct{})
	s.mu.Unlock()
	return nil
}

// Freed returns a channel that is closed when this process next gives
// something back. What another process gives back does not show here.
func (s *Store) Freed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freed
}

// Holdings returns all holdings by the thing they are for, and those that
// cannot be read.
func (s *Store) Holdings() (map[string]Holding, []*UnreadableError, error) {
	things, err := s.names(holdingsDir)
	if err != nil {
		return nil, nil, err
	}
	holdings := map[string]Holding{}
	var unreadable []*UnreadableError
	for _, thing := range things {
		h, err := s.Holder(thing)
		var bad *UnreadableError
		switch {
		case errors.As(err, &bad):
			unreadable = append(unreadable, bad)
		case err != nil:
			return nil, nil, err
		case h != nil:
			holdings[thing] = *h
		}
	}
	return holdings, unreadable, nil
}

func (s *Store) holdingPath(thing string) string {
	return filepath.Join(s.dir, holdingsDir, thing+fileSuffix)
}
