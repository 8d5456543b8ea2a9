package hostbin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestInstall(t *testing.T) {
	for name, before := range map[string]*string{
		"nothing there": nil,
		"same":          ptr("program"),
		"older version": ptr("old program, longer"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			source, target := filepath.Join(dir, "source"), filepath.Join(dir, "bin", "hook")
			write(t, source, "program")
			if before != nil {
				if err := os.Mkdir(filepath.Dir(target), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, target, *before)
			}
			if err := Install(source, target); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(target)
			if err != nil || string(content) != "program" {
				t.Errorf("installed %q, %v", content, err)
			}
			info, err := os.Stat(target)
			if err != nil {
				t.Fatal(err)
			}
			if before == nil && info.Mode().Perm() != 0o755 {
				t.Errorf("mode %v: the host could not run it", info.Mode())
			}
			entries, err := os.ReadDir(filepath.Dir(target))
			if err != nil || len(entries) != 1 {
				t.Errorf("want nothing but the program, got %v, %v", entries, err)
			}
		})
	}
}

// Of an installation that was killed nothing stays, whether there is still
// something to install or not, and many at the same time do not disturb each
// other.
func TestInstallationsThatWereKilled(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "bin", "hook")
	write(t, source, "program")
	if err := os.Mkdir(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		write(t, target+"-of-another-release", "stays")
		write(t, filepath.Join(dir, "bin", ".installing-hook-123"), "pro")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := Install(source, target); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		entries, err := os.ReadDir(filepath.Dir(target))
		if err != nil || len(entries) != 2 {
			t.Errorf("want the two programs, got %v, %v", entries, err)
		}
	}
}

func TestInstallMissingSource(t *testing.T) {
	err := Install(filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "hook"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want an error that says that the source is missing, got %v", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func ptr(s string) *string { return &s }
