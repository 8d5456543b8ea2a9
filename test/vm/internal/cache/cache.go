package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Env is the environment variable that names the cache folder.
const Env = "EKS_HYBRID_DRA_CACHE"

// unused is after how long without use an entry makes room for a new one.
const unused = 14 * 24 * time.Hour

// Dir is the part of the shared cache that belongs to the guest.
func Dir() (string, error) {
	if dir := os.Getenv(Env); dir != "" {
		return filepath.Join(dir, "vm"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (set %s to choose one): %w", Env, err)
	}
	return filepath.Join(dir, "eks-hybrid-dra", "vm"), nil
}

// Key is a short name for everything that an entry is made from.
func Key(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])[:12]
}

// Ensure returns the path of the named folder in dir. Where it is missing,
// build fills a folder that then gets the name; a second process waits for it.
func Ensure(dir, name string, build func(partial string) error) (path string, err error) {
	path = filepath.Join(dir, name)
	// The time of its last use keeps it.
	if err := os.Chtimes(path, time.Time{}, time.Now()); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	unlock, err := Lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	// Another process may have made it while this one waited.
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	partial := path + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", fmt.Errorf("remove the rest of an earlier try: %w", err)
	}
	if err := os.Mkdir(partial, 0o755); err != nil {
		return "", fmt.Errorf("make a cache entry: %w", err)
	}
	if err := build(partial); err != nil {
		return "", errors.Join(err, os.RemoveAll(partial))
	}
	if err := os.Rename(partial, path); err != nil {
		return "", fmt.Errorf("put an entry into the cache: %w", err)
	}
	return path, prune(dir, name)
}

// prune removes what was of the same kind as the new entry, and has not been
// used for long.
func prune(dir, name string) error {
	kind, _, _ := strings.Cut(name, "-")
	entries, err := filepath.Glob(filepath.Join(dir, kind+"-*"))
	if err != nil {
		return fmt.Errorf("look for old cache entries: %w", err)
	}
	for _, path := range entries {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < unused {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove an old cache entry: %w", err)
		}
	}
	return nil
}

// Lock waits for the file's lock and holds it until the returned function is
// called or the process ends. Who holds it may remove the file.
func Lock(path string) (unlock func() error, err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open a lock: %w", err)
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		locked, err1 := f.Stat()
		current, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(locked, current) {
			return f.Close, nil
		}
		// It was removed meanwhile: another may have locked a new one.
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("close a lock: %w", err)
		}
	}
}
