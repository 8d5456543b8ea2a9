package registrytrust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

// makeFolder makes a registry's folder with its files in one step.
func (s Store) makeFolder(folder string, files map[string][]byte) (err error) {
	temp, err := os.MkdirTemp(s.Dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeOwn(temp))
		}
	}()
	for name, content := range files {
		if _, err := wholefile.Write(content, synced(filepath.Join(temp, name))); err != nil {
			return err
		}
	}
	// containerd is root, but its folder is for all to read.
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	if err := wholefile.SyncFolder(temp); err != nil {
		return err
	}
	// This fails where somebody else has just made the folder, unless theirs is
	// empty.
	if err := os.Rename(temp, filepath.Join(s.Dir, folder)); err != nil {
		return err
	}
	return wholefile.SyncFolder(s.Dir)
}

// replaceFiles replaces files that were written here, and adds those that are
// missing. The certificates come first: without a hosts.toml containerd finds
// them by their name.
func (s Store) replaceFiles(folder string, look folderLook, want map[string][]byte) error {
	dir := filepath.Join(s.Dir, folder)
	for _, name := range []string{bundleFile, hostsFile} {
		if string(look.ours[name]) == string(want[name]) {
			continue
		}
		if err := s.replaceFile(filepath.Join(dir, name), want[name], look.ours[name] != nil); err != nil {
			return err
		}
	}
	return wholefile.SyncFolder(dir)
}

func (s Store) replaceFile(path string, content []byte, replace bool) (err error) {
	temp := filepath.Join(s.Dir, tempPrefix+"*")
	if replace {
		return wholefile.Replace(path, content, synced(temp))
	}
	temp, err = wholefile.Write(content, synced(temp))
	defer func() { err = errors.Join(err, wholefile.Remove(temp)) }()
	if err != nil {
		return err
	}
	// Unlike a rename, this fails where somebody has just put a file there.
	return os.Link(temp, path)
}

// removeFolder takes a folder of ours out of containerd's sight in one step,
// and then away.
func (s Store) removeFolder(folder string, look folderLook) error {
	path, temp := filepath.Join(s.Dir, folder), filepath.Join(s.Dir, tempPrefix+strings.Trim(folder, "."))
	if err := os.Rename(path, temp); err != nil {
		return err
	}
	err := s.removeFiles(temp, look)
	if err == nil {
		err = os.Remove(temp)
	}
	if notEmpty(err) {
		// Somebody has just put a file there.
		err = os.Rename(temp, path)
	}
	return errors.Join(err, wholefile.SyncFolder(s.Dir))
}

// removeFiles removes our files. The certificates go last: containerd could
// not pull with a hosts.toml that names a file that is missing.
func (s Store) removeFiles(dir string, look folderLook) error {
	for _, name := range []string{hostsFile, bundleFile} {
		if look.ours[name] == nil {
			continue
		}
		if err := wholefile.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return wholefile.SyncFolder(dir)
}

// synced is how files are written, by way of a path: containerd is root, but its
// folder is for all to read.
func synced(temp string) wholefile.Options {
	return wholefile.Options{Temp: temp, Mode: 0o644, Sync: wholefile.Content}
}
