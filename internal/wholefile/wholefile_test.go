package wholefile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// found is what is in a folder: the content of each file, by its name.
func found(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(content)
	}
	return files
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplace(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		there map[string]string
		// temp is a name in the folder.
		temp    string
		sync    Sync
		written error
		want    map[string]string
	}{
		"nothing there":                 {want: map[string]string{"file": "new"}},
		"an old one":                    {there: map[string]string{"file": "the old one"}, want: map[string]string{"file": "new"}},
		"synced":                        {there: map[string]string{"file": "the old one"}, sync: Content, want: map[string]string{"file": "new"}},
		"with its name":                 {there: map[string]string{"file": "the old one"}, sync: ContentAndName, want: map[string]string{"file": "new"}},
		"an interrupted write":          {there: map[string]string{".file.tmp": "longer than the new one"}, want: map[string]string{"file": "new"}},
		"one of a chosen name":          {there: map[string]string{"file.new": "longer than the new one", ".file.tmp": "of others"}, temp: "file.new", want: map[string]string{"file": "new", ".file.tmp": "of others"}},
		"beside others":                 {there: map[string]string{"file-1": "of others"}, temp: "file-*", want: map[string]string{"file": "new", "file-1": "of others"}},
		"fails before it is seen":       {there: map[string]string{"file": "old"}, written: refused, want: map[string]string{"file": "old"}},
		"fails under a name of its own": {there: map[string]string{"file": "old"}, temp: "file-*", sync: ContentAndName, written: refused, want: map[string]string{"file": "old"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir, test.there)
			o := Options{Mode: 0o600, Sync: test.sync}
			if test.temp != "" {
				o.Temp = filepath.Join(dir, test.temp)
			}
			old := test.there["file"]
			o.Written = func() error {
				if now := found(t, dir)["file"]; now != old {
					t.Errorf("seen before it was whole: %q", now)
				}
				return test.written
			}
			if err := Replace(filepath.Join(dir, "file"), []byte("new"), o); !errors.Is(err, test.written) {
				t.Errorf("error %v, want %v", err, test.written)
			}
			if diff := cmp.Diff(test.want, found(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The mode is what was asked for, not what a file had that was there, nor what
// the umask leaves of it.
func TestMode(t *testing.T) {
	before := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(before) })
	for name, temp := range map[string]string{"new": "temp", "there": "there", "random": "*"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir, map[string]string{"there": "old"})
			path := filepath.Join(dir, "file")
			if err := Replace(path, []byte("new"), Options{Temp: filepath.Join(dir, temp), Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

// What cannot be written leaves no trace, and the error tells which file it was.
func TestFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "folder", "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no folder":        filepath.Join(dir, "missing", "file"),
		"a folder instead": filepath.Join(dir, "folder"),
	} {
		t.Run(name, func(t *testing.T) {
			err := Replace(path, []byte("new"), Options{Mode: 0o600})
			var where *os.PathError
			var move *os.LinkError
			if !errors.As(err, &where) && !errors.As(err, &move) {
				t.Errorf("error %v", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, step := range []struct {
		content string
		writes  bool
	}{{"one", true}, {"one", false}, {"two", true}} {
		writes := false
		o := Options{Mode: 0o600, Written: func() error {
			writes = true
			return nil
		}}
		if err := Update(path, []byte(step.content), o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"file": step.content}, found(t, dir)); diff != "" || writes != step.writes {
			t.Errorf("wrote %t, want %t; %s", writes, step.writes, diff)
		}
	}
}

func TestWriteLeavesTheNameToTheCaller(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"file": "old"})
	path, err := Write([]byte("new"), Options{Temp: filepath.Join(dir, "part-*"), Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"file": "old", filepath.Base(path): "new"}
	if diff := cmp.Diff(want, found(t, dir)); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
}
