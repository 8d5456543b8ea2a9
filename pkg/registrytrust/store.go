package registrytrust

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

// tempPrefix begins the names of what is being written or removed. No host has
// such a name.
const tempPrefix = ".registry-trust-tmp-"

// Store is containerd's folder with the settings of registries, usually
// /etc/containerd/certs.d. It never changes or removes a file that was not
// written by it, or that was changed since. At any moment a registry's folder
// is there whole or not at all, and what a crash leaves is removed by the next
// call.
type Store struct {
	// Dir is the folder's path.
	Dir string
}

// Put writes the certificates that are to be trusted for a registry, and says
// whether that changed anything. The error is a *Problem where files of
// somebody else are in the way.
func (s Store) Put(host string, bundle []byte) (changed bool, err error) {
	err = s.exclusively(func() error {
		folder := FolderOf(host)
		look, err := s.look(folder)
		if err != nil {
			return err
		}
		if err := s.mayWrite(host, look); err != nil {
			return err
		}
		want := contents(host, bundle, look.made || !look.exists)
		if look.has(want) {
			return nil
		}
		changed = true
		if !look.exists {
			return s.makeFolder(folder, want)
		}
		return s.replaceFiles(folder, look, want)
	})
	if err != nil {
		return false, fmt.Errorf("write the settings of %s into %s: %w", host, filepath.Join(s.Dir, FolderOf(host)), err)
	}
	return changed, nil
}

// Remove removes what was written into a registry's folder, and the folder
// itself if it was made here and nothing else is in it.
func (s Store) Remove(folder string) error {
	err := s.exclusively(func() error {
		look, err := s.look(folder)
		if err != nil || len(look.ours) == 0 {
			return err
		}
		if look.made && len(look.others) == 0 {
			return s.removeFolder(folder, look)
		}
		return s.removeFiles(filepath.Join(s.Dir, folder), look)
	})
	if err != nil {
		return fmt.Errorf("remove what was written into %s: %w", filepath.Join(s.Dir, folder), err)
	}
	return nil
}

// Written returns the names of the folders in which there is a file that was
// written here. It also removes what a crash left.
func (s Store) Written() ([]string, error) {
	var written []string
	err := s.exclusively(func() error {
		entries, err := os.ReadDir(s.Dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if !entry.IsDir() {
				continue
			}
			look, err := s.look(entry.Name())
			if err != nil {
				return err
			}
			if len(look.ours) > 0 {
				written = append(written, entry.Name())
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what was written into %s: %w", s.Dir, err)
	}
	return written, nil
}

// Bundle returns the certificates that containerd trusts for a registry because
// of what was written here. There are none where nothing was.
func (s Store) Bundle(host string) ([]byte, error) {
	look, err := s.look(FolderOf(host))
	if err != nil {
		return nil, fmt.Errorf("read the certificates of %s: %w", host, err)
	}
	if look.ours[hostsFile] == nil {
		return nil, nil
	}
	return look.ours[bundleFile], nil
}

// folderLook is what was found in a registry's folder.
type folderLook struct {
	exists, made bool
	// ours maps names of files that were written here to their content.
	ours map[string][]byte
	// others are names of whatever else is there.
	others []string
}

func (l folderLook) has(want map[string][]byte) bool {
	for name, content := range want {
		if !bytes.Equal(l.ours[name], content) {
			return false
		}
	}
	return true
}

func (s Store) look(folder string) (folderLook, error) {
	look := folderLook{ours: map[string][]byte{}}
	dir := filepath.Join(s.Dir, folder)
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return look, nil
	}
	if err != nil {
		return look, err
	}
	look.exists = true
	if !info.IsDir() {
		// Such as a link to a folder somewhere else.
		look.others = []string{"."}
		return look, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		// What root may not read without capabilities is not ours.
		look.others = []string{"."}
		return look, nil
	}
	if err != nil {
		return look, err
	}
	for _, entry := range entries {
		name := entry.Name()
		content, err := s.readOwn(folder, entry)
		if err != nil {
			return look, err
		}
		if content == nil {
			look.others = append(look.others, name)
			continue
		}
		look.ours[name] = content
		look.made = look.made || madeFolder(content)
	}
	return look, nil
}

// readOwn returns the content of a file that was written here, else nil.
func (s Store) readOwn(folder string, entry fs.DirEntry) ([]byte, error) {
	if name := entry.Name(); !entry.Type().IsRegular() || name != hostsFile && name != bundleFile {
		return nil, nil
	}
	content, err := os.ReadFile(filepath.Join(s.Dir, folder, entry.Name()))
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil || !signed(folder, entry.Name(), content) {
		return nil, err
	}
	return content, nil
}

// mayWrite returns a *Problem where something that is not ours would lose its
// effect or its content.
func (s Store) mayWrite(host string, look folderLook) error {
	folder := FolderOf(host)
	path := filepath.Join(s.Dir, folder)
	const wayOut = "move %s away to have it managed by registry-trust, or take %s out of its configuration"
	inTheWay := slices.ContainsFunc(look.others, func(name string) bool { return name == hostsFile || name == bundleFile })
	// Without a hosts.toml containerd takes every certificate and key in the
	// folder; one of ours would switch that off.
	if inTheWay || len(look.others) > 0 && look.ours[hostsFile] == nil {
		return problemf(ReasonForeignFiles, "%s holds files that registry-trust did not write, or that were changed since (%s), and is left as it is: "+wayOut,
			path, strings.Join(look.others, ", "), path, host)
	}
	// containerd looks into host_port_ first, so a folder host:port would lose
	// its effect.
	if plain := filepath.Join(s.Dir, host); folder != host && len(look.ours) == 0 {
		if _, err := os.Lstat(plain); err == nil {
			return problemf(ReasonForeignFiles, "%s is there, which registry-trust did not write, and containerd would not look into it any more: "+wayOut, plain, plain, host)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// exclusively runs f while no other instance writes, after removing what one
// that was killed has left. The kernel drops the lock of a process that dies.
func (s Store) exclusively(f func() error) (err error) {
	dir, err := os.Open(s.Dir)
	if err != nil {
		return fmt.Errorf("%w: see that the host's folder is mounted there", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", s.Dir, err)
		}
	}
	if err := s.removeLeftovers(); err != nil {
		return err
	}
	return f()
}

func (s Store) removeLeftovers() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		path := filepath.Join(s.Dir, entry.Name())
		if entry.IsDir() {
			errs = append(errs, removeOwn(path))
		} else {
			errs = append(errs, wholefile.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// removeOwn removes a folder and our files in it, and fails where there are
// others.
func removeOwn(dir string) error {
	return errors.Join(
		wholefile.Remove(filepath.Join(dir, hostsFile)),
		wholefile.Remove(filepath.Join(dir, bundleFile)),
		wholefile.Remove(dir))
}

func notEmpty(err error) bool { return errors.Is(err, syscall.ENOTEMPTY) }
