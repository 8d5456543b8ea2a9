package cache

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnEntryIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	var builds atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			path, err := Ensure(dir, "entry", func(partial string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(partial, "file"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(path, "file")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if builds.Load() != 1 {
		t.Errorf("it was made %d times", builds.Load())
	}
}

func TestAFailedEntryLeavesNothing(t *testing.T) {
	dir, broken := t.TempDir(), errors.New("broken")
	if _, err := Ensure(dir, "entry", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "entry*[^k]")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Ensure(dir, "entry", func(string) error { return nil }); err != nil {
		t.Errorf("the next try: %v", err)
	}
}

func TestANewEntryTakesThePlaceOfUnusedOnes(t *testing.T) {
	dir := t.TempDir()
	fill := func(string) error { return nil }
	for _, name := range []string{"disk-old", "disk-used", "base-old"} {
		path, err := Ensure(dir, name, fill)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*unused)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"disk-used", "disk-new"} {
		if _, err := Ensure(dir, name, fill); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"disk-old": false, "disk-used": true, "disk-new": true, "base-old": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
}

func TestALockThatIsRemovedLocksNothingTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			unlock, err := Lock(path)
			if err != nil {
				t.Error(err)
				return
			}
			if holders.Add(1) > 1 {
				t.Error("two hold the lock")
			}
			holders.Add(-1)
			if err := errors.Join(os.Remove(path), unlock()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestDir(t *testing.T) {
	t.Setenv(Env, "/somewhere")
	if got, err := Dir(); err != nil || got != "/somewhere/vm" {
		t.Errorf("got %s, %v", got, err)
	}
	t.Setenv(Env, "")
	t.Setenv("XDG_CACHE_HOME", "/cache")
	if got, err := Dir(); err != nil || got != "/cache/eks-hybrid-dra/vm" {
		t.Errorf("got %s, %v", got, err)
	}
}
