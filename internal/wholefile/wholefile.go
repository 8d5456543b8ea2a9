package wholefile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Sync is what of a file has reached the disk when it is written.
type Sync int

const (
	// Unsynced is nothing: a crash of the machine may leave an empty file.
	Unsynced Sync = iota
	// Content is what is in the file: a crash of the machine leaves the old
	// file or the new one.
	Content
	// ContentAndName is the folder too: a crash of the machine leaves the new
	// file.
	ContentAndName
)

// Options say how a file is written.
type Options struct {
	// Temp is the path that the file has until it is whole, in the file system
	// of its own path. With a "*" in its last element it is one that nobody
	// else has, as with [os.CreateTemp]; otherwise the caller sees to it that
	// nobody else writes there, and a file that is there gets the content.
	// Nothing is the file's own name between a dot and ".tmp".
	Temp string
	// Mode is the file's, whatever the umask and a file that is there say.
	Mode os.FileMode
	Sync Sync
	// Written is called when the content is written, before anybody can see it.
	// If it fails, so does the write. Nil is nothing to do.
	Written func() error
}

// Replace gives a file a new content. If it fails, the file is as it was, and
// what was written of the new one is removed; only with [ContentAndName] it may
// have failed after the file was replaced.
func Replace(path string, data []byte, o Options) error {
	if o.Temp == "" {
		o.Temp = filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	}
	temp, err := Write(data, o)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, Remove(temp))
	}
	if o.Sync < ContentAndName {
		return nil
	}
	return SyncFolder(filepath.Dir(path))
}

// Update is [Replace] for a file that may have that content already: then nothing
// is written, which needs no room on the disk, nor is the mode looked at.
func Update(path string, data []byte, o Options) error {
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, data) {
		return nil
	}
	return Replace(path, data, o)
}

// Write is the first half of [Replace], for callers who give the file its name
// themselves: it writes the file at o.Temp, which must be said, and syncs no
// folder. It returns the path of the file, also where it fails and there may be
// one that has to be removed.
func Write(data []byte, o Options) (path string, err error) {
	dir, name := filepath.Dir(o.Temp), filepath.Base(o.Temp)
	var file *os.File
	if strings.Contains(name, "*") {
		file, err = os.CreateTemp(dir, name)
	} else {
		path = o.Temp
		file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, o.Mode)
	}
	if err != nil {
		return path, err
	}
	if err := errors.Join(fill(file, data, o), file.Close()); err != nil {
		return file.Name(), err
	}
	if o.Written != nil {
		err = o.Written()
	}
	return file.Name(), err
}

func fill(file *os.File, data []byte, o Options) error {
	if _, err := file.Write(data); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	// A file that was there is shortened after the write and not before, so that
	// it needs no room but what it has.
	if info.Size() > int64(len(data)) {
		if err := file.Truncate(int64(len(data))); err != nil {
			return err
		}
	}
	if info.Mode().Perm() != o.Mode {
		if err := file.Chmod(o.Mode); err != nil {
			return err
		}
	}
	if o.Sync == Unsynced {
		return nil
	}
	return file.Sync()
}

// SyncFolder waits until the names in a folder have reached the disk.
func SyncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Remove removes a file, or an empty folder. None is fine, and so is no path.
func Remove(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
