package claimstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
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
	taken, err := s.create(thing, h.Claim.UID, data)
	if err != nil {
		return nil, s.cannotWrite(fmt.Errorf("take %s for claim %s: %w", thing, h.Claim, err))
	}
	if taken {
		return nil, nil
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

// create writes the file of a holding, unless there is one.
func (s *Store) create(thing string, uid types.UID, data []byte) (created bool, err error) {
	path := s.holdingPath(thing)
	temp, err := wholefile.Write(data, wholefile.Options{
		Temp: tempHolding(path, uid), Mode: 0o600,
		Written: func() error { return faultpoint.At(faultpoint.HoldingWritten) },
	})
	if err != nil {
		return false, errors.Join(err, wholefile.Remove(temp))
	}
	// A link, unlike a rename, never replaces: of all who try, one has it.
	err = os.Link(temp, path)
	created = err == nil
	if created {
		err = faultpoint.At(faultpoint.HoldingLinked)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err = errors.Join(err, wholefile.Remove(temp)); err != nil && created {
		return false, errors.Join(err, wholefile.Remove(path))
	}
	return created, err
}

// Update replaces a holding that the claim has.
func (s *Store) Update(thing string, h Holding) error {
	has, err := s.Holds(h.Claim.UID, thing)
	if err != nil || !has {
		return err
	}
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode the holding of %s: %w", thing, err)
	}
	path := s.holdingPath(thing)
	err = wholefile.Replace(path, data, wholefile.Options{
		Temp: tempHolding(path, h.Claim.UID), Mode: 0o600,
		Written: func() error { return faultpoint.At(faultpoint.UpdateWritten) },
	})
	if err != nil {
		return s.cannotWrite(fmt.Errorf("note who uses %s: %w", thing, err))
	}
	return nil
}

// tempHolding is the path of a file that becomes a holding, for
// [wholefile.Options].
func tempHolding(path string, uid types.UID) string {
	thing := strings.TrimSuffix(filepath.Base(path), fileSuffix)
	return filepath.Join(filepath.Dir(path), tempPrefix+thing+"~*@"+string(uid)+fileSuffix)
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
		return nil, wholefile.ReadError(path, err)
	}
	h, err := decodeHolding(data)
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	return h, nil
}

// Holds tells whether the claim has the thing.
func (s *Store) Holds(uid types.UID, thing string) (bool, error) {
	holder, err := s.Holder(thing)
	return err == nil && holder != nil && holder.Claim.UID == uid, err
}

// Free gives a physical thing back, if the claim is the one that has it, and
// tells who waits for [Store.Freed].
func (s *Store) Free(thing string, uid types.UID) error {
	had, err := s.giveBack(thing, uid)
	if err != nil || !had {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.freed)
	s.freed = make(chan struct{})
	return nil
}

// PutBack is [Store.Free] for a thing that was taken a moment ago by a claim that
// must wait for another thing: it would only wake itself.
func (s *Store) PutBack(thing string, uid types.UID) error {
	_, err := s.giveBack(thing, uid)
	return err
}

// giveBack tells whether the claim had the thing.
func (s *Store) giveBack(thing string, uid types.UID) (bool, error) {
	if had, err := s.Holds(uid, thing); err != nil || !had {
		return false, err
	}
	if err := wholefile.Remove(s.holdingPath(thing)); err != nil {
		return false, s.cannotWrite(fmt.Errorf("give back %s: %w", thing, err))
	}
	return true, nil
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

// ThingOf returns what a holding that cannot be read is for.
func ThingOf(unreadable *UnreadableError) string {
	return strings.TrimSuffix(filepath.Base(unreadable.Path), fileSuffix)
}

// HoldingsOf returns the holdings of one claim by the thing they are for. One
// that cannot be read is nobody's.
func (s *Store) HoldingsOf(uid types.UID) (map[string]Holding, error) {
	things, err := s.names(holdingsDir)
	if err != nil {
		return nil, err
	}
	holdings := map[string]Holding{}
	for _, thing := range things {
		path := s.holdingPath(thing)
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = wholefile.ReadError(path, err)
			if !errors.As(err, new(*UnreadableError)) {
				return nil, err
			}
		}
		if err != nil || !bytes.Contains(data, []byte(uid)) { // decoding takes longer than looking
			continue
		}
		if h, err := decodeHolding(data); err == nil && h.Claim.UID == uid {
			holdings[thing] = *h
		}
	}
	return holdings, nil
}

func (s *Store) holdingPath(thing string) string {
	return filepath.Join(s.dir, holdingsDir, thing+fileSuffix)
}
