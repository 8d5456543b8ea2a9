package simulated

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// marker is a folder in every root that the simulation writes. It tells that
// the root is ours, and holds what is being written.
const marker = ".simulated"

// tree is a set of files and symbolic links, by their path below a root.
type tree map[string]entry

type entry struct {
	// link is the target of a symbolic link; a file has none.
	link string
	data []byte
	mode fs.FileMode
}

// file adds a line of text, as sysfs shows its attributes.
func (t tree) file(path, text string) {
	t[path] = entry{data: []byte(text + "\n"), mode: 0o644}
}

// link adds a relative symbolic link. Both paths are below the root.
func (t tree) link(path, target string) {
	relative, err := filepath.Rel(filepath.Dir(path), target)
	if err != nil {
		// Both are relative and without "..", for which Rel does not fail.
		relative = target
	}
	t[path] = entry{link: relative}
}

// write brings the tree below root. What is already as it should be is left
// alone; the rest is replaced by renaming, so that nobody sees half a file.
func (t tree) write(root string) error {
	w, err := newWriter(root)
	if err != nil {
		return err
	}
	defer w.close()
	for _, path := range slices.Sorted(maps.Keys(t)) {
		if err := w.put(path, t[path]); err != nil {
			return err
		}
	}
	return nil
}

// writer replaces entries below a root.
type writer struct {
	root    string
	staging string
	serial  int
	folders map[string]bool
}

// newWriter prepares a root. A folder that holds anything else than a
// simulation is refused: root may have been "/" by mistake, where we would
// write over the real driver.
func newWriter(root string) (*writer, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking at the folder for the simulated machine: %w", err)
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == marker })
	if len(entries) > 0 && !ours {
		return nil, fmt.Errorf("folder %s holds files that are not of a simulated machine: name an empty folder", root)
	}
	if err := os.MkdirAll(filepath.Join(root, marker), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for the simulated machine: %w", err)
	}
	staging, err := os.MkdirTemp(filepath.Join(root, marker), "write-")
	if err != nil {
		return nil, fmt.Errorf("making a folder to write the simulated machine in: %w", err)
	}
	return &writer{root: root, staging: staging, folders: map[string]bool{}}, nil
}

// close removes what a failure left behind. What remains harms nobody, so an
// error is of no interest.
func (w *writer) close() {
	_ = os.RemoveAll(w.staging)
}

func (w *writer) put(path string, e entry) error {
	if e.matches(filepath.Join(w.root, path)) {
		return nil
	}
	return w.replace(path, func(staged string) error {
		if e.link != "" {
			return os.Symlink(e.link, staged)
		}
		if err := os.WriteFile(staged, e.data, e.mode); err != nil {
			return err
		}
		// The umask must not take bits away: containers read these files.
		return os.Chmod(staged, e.mode)
	})
}

// replace puts what create makes in the place of path.
func (w *writer) replace(path string, create func(staged string) error) error {
	final := filepath.Join(w.root, path)
	if folder := filepath.Dir(final); !w.folders[folder] {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making a folder of the simulated machine: %w", err)
		}
		w.folders[folder] = true
	}
	w.serial++
	staged := filepath.Join(w.staging, strconv.Itoa(w.serial))
	if err := create(staged); err != nil {
		return fmt.Errorf("writing %s of the simulated machine: %w", final, err)
	}
	if err := os.Rename(staged, final); err != nil {
		return fmt.Errorf("writing %s of the simulated machine: %w", final, err)
	}
	return nil
}

// matches tells whether path already is what the entry describes.
func (e entry) matches(path string) bool {
	if e.link != "" {
		target, err := os.Readlink(path)
		return err == nil && target == e.link
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != e.mode || info.Size() != int64(len(e.data)) {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && bytes.Equal(data, e.data)
}
