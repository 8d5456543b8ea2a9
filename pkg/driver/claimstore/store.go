package claimstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

const (
	claimsDir   = "claims"
	holdingsDir = "devices"
	asideDir    = "unreadable"
	lockFile    = "claims.lock"
	fileSuffix  = ".json"
	tempPrefix  = ".writing-"
)

// Store is the state of one driver on one node. Its methods may be called
// from several goroutines and processes. Methods that take a claim's UID to
// change something want the claim's lock held.
type Store struct {
	dir    string
	locks  *locks
	spares *spares

	mu    sync.Mutex
	freed chan struct{}
}

// Open returns the store in dir, which it creates where it is missing. Files
// of an interrupted write are removed.
func Open(ctx context.Context, dir string) (*Store, error) {
	for _, d := range []string{claimsDir, holdingsDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("create the claim store: %w", err)
		}
	}
	// Now, so that a file can be set aside on a full disk. Then it is tried again.
	_ = os.MkdirAll(filepath.Join(dir, asideDir), 0o700)
	spare, err := openSpares(filepath.Join(dir, sparesDir), filepath.Join(dir, claimsDir))
	if err != nil {
		return nil, err
	}
	l, err := newLocks(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, locks: l, spares: spare, freed: make(chan struct{})}
	if err := s.removeTemporary(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives back what the store keeps open. The files stay.
func (s *Store) Close() error { return s.locks.file.Close() }

// Lock waits until nobody else, here or in another process, works on the
// claim. It fails when ctx is done first.
func (s *Store) Lock(ctx context.Context, uid types.UID) (unlock func(), err error) {
	return s.locks.lock(ctx, uid)
}

// Load returns the record of a claim, or nil if there is none. A record that
// cannot be read is an [UnreadableError].
func (s *Store) Load(uid types.UID) (*Record, error) {
	path := s.claimPath(uid)
	data, err := readRecord(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wholefile.ReadError(path, err)
	}
	r, err := decodeRecord(data, uid)
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	return r, nil
}

// Save writes a claim's record so that it survives a crash of the machine.
func (s *Store) Save(r *Record) error {
	r.Version = max(r.Version, FormatVersion)
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record of claim %s: %w", r.Claim, err)
	}
	if err := s.writeDurably(s.claimPath(r.Claim.UID), data); err != nil {
		return s.cannotWrite(fmt.Errorf("save the record of claim %s: %w", r.Claim, err))
	}
	return nil
}

// Delete removes a claim's record. No record is fine.
func (s *Store) Delete(uid types.UID) error {
	if err := s.spares.add(s.claimPath(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.cannotWrite(fmt.Errorf("delete the record of claim %s: %w", uid, err))
	}
	return nil
}

// Claims returns the UIDs of all claims that have a record.
func (s *Store) Claims() ([]types.UID, error) {
	names, err := s.names(claimsDir)
	if err != nil {
		return nil, err
	}
	uids := make([]types.UID, len(names))
	for i, name := range names {
		uids[i] = types.UID(name)
	}
	return uids, nil
}

// SetAside moves a file that cannot be read out of the way, into a folder
// where an admin can look at it, and returns its new path, or nothing if
// somebody else has mended it meanwhile.
func (s *Store) SetAside(ctx context.Context, unreadable *UnreadableError) (string, error) {
	// Of two that found the same file, the second must not move what the first
	// has put into its place.
	unlock, err := s.Lock(ctx, types.UID("set aside "+unreadable.Path))
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := s.read(unreadable.Path); !errors.As(err, new(*UnreadableError)) {
		return "", err
	}
	dir := filepath.Join(s.dir, asideDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", s.cannotWrite(fmt.Errorf("set %s aside: %w", unreadable.Path, err))
	}
	if err := faultpoint.At(faultpoint.AsideMade); err != nil {
		return "", err
	}
	path, err := wholefile.SetAside(unreadable.Path, dir)
	if err != nil {
		return "", s.cannotWrite(fmt.Errorf("set %s aside: %w", unreadable.Path, err))
	}
	return path, nil
}

// read returns what is wrong with a file of the store.
func (s *Store) read(path string) error {
	name := strings.TrimSuffix(filepath.Base(path), fileSuffix)
	var err error
	if filepath.Base(filepath.Dir(path)) == claimsDir {
		_, err = s.Load(types.UID(name))
	} else {
		_, err = s.Holder(name)
	}
	return err
}

// UnreadableError is a file of the store that is there but makes no sense.
type UnreadableError = wholefile.UnreadableError

// cannotWrite adds the way out to an error of writing.
func (s *Store) cannotWrite(err error) error {
	return fmt.Errorf("%w: see that %s can be written and has room", err, s.dir)
}

func (s *Store) claimPath(uid types.UID) string {
	return filepath.Join(s.dir, claimsDir, string(uid)+fileSuffix)
}

// names returns the names of the files in one of the store's folders, without
// their suffix, sorted.
func (s *Store) names(folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, folder))
	if err != nil {
		return nil, fmt.Errorf("list the claim store: %w", err)
	}
	var names []string
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), fileSuffix)
		if !ok || strings.HasPrefix(name, tempPrefix) {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// removeTemporary removes what interrupted writes left. A write happens under
// its claim's lock, and its file's name ends in the claim's UID, so that the
// write of an instance that still runs is not disturbed.
func (s *Store) removeTemporary(ctx context.Context) error {
	for _, folder := range []string{claimsDir, holdingsDir} {
		entries, err := os.ReadDir(filepath.Join(s.dir, folder))
		if err != nil {
			return fmt.Errorf("list the claim store: %w", err)
		}
		for _, entry := range entries {
			rest, ok := strings.CutPrefix(entry.Name(), tempPrefix)
			if !ok {
				continue
			}
			uid := rest[strings.LastIndex(rest, "@")+1:]
			unlock, err := s.Lock(ctx, types.UID(strings.TrimSuffix(uid, fileSuffix)))
			if err != nil {
				return err
			}
			err = wholefile.Remove(filepath.Join(s.dir, folder, entry.Name()))
			unlock()
			if err != nil {
				return fmt.Errorf("remove an interrupted write: %w", err)
			}
		}
	}
	return nil
}

// writeDurably replaces a record such that a reader, or a crash of the machine,
// finds either the old one or the new one, whole.
func (s *Store) writeDurably(path string, data []byte) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, tempPrefix+filepath.Base(path))
	if err := s.spares.take(temp); err != nil {
		return errors.Join(err, wholefile.Remove(temp))
	}
	err := wholefile.Replace(path, data, wholefile.Options{
		Temp: temp, Mode: 0o600, Sync: wholefile.Content,
		Written: func() error { return faultpoint.At(faultpoint.FileWritten) },
	})
	if err != nil {
		return err
	}
	return s.spares.sync(dir)
}

// readRecord reads a record's file. What was deleted while it was read is not
// there: its file may have been given to another claim by then.
func readRecord(path string) ([]byte, error) {
	for {
		data, same, err := readSame(path)
		if err != nil || same {
			return data, err
		}
	}
}

// readSame reads a file and tells whether it still has its name.
func readSame(path string) (data []byte, same bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if data, err = io.ReadAll(file); err != nil {
		return nil, false, err
	}
	read, err := file.Stat()
	if err != nil {
		return nil, false, err
	}
	now, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	return data, os.SameFile(read, now), nil
}
