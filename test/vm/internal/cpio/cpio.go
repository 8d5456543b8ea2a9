package cpio

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File types, as in inode(7).
const (
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeSymlink = 0o120000
	typeChar    = 0o020000
)

// alignment separates one archive from the next, for any kernel.
const alignment = 512

// Writer writes an archive in the "newc" format. All files belong to root and
// have no time, so the same content gives the same archive.
type Writer struct {
	out     io.Writer
	written int64
	inode   int
	dirs    map[string]bool
	err     error
}

// NewWriter starts an archive.
func NewWriter(out io.Writer) *Writer {
	return &Writer{out: out, dirs: map[string]bool{".": true}}
}

// Dir adds a folder and those above it, once each.
func (w *Writer) Dir(name string) error {
	name = clean(name)
	if w.dirs[name] {
		return w.err
	}
	if err := w.Dir(filepath.Dir(name)); err != nil {
		return err
	}
	w.dirs[name] = true
	w.header(name, typeDir|0o755, 0)
	return w.err
}

// File adds a file.
func (w *Writer) File(name string, mode fs.FileMode, content []byte) error {
	return w.entry(name, typeRegular|int(mode.Perm()), content)
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	return w.entry(name, typeSymlink|0o777, []byte(target))
}

// Copy adds the file at path under the given name, with its mode.
func (w *Writer) Copy(name, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	return w.File(name, info.Mode(), content)
}

// CharDevice adds a character device.
func (w *Writer) CharDevice(name string, mode fs.FileMode, major, minor int) error {
	if err := w.Dir(filepath.Dir(clean(name))); err != nil {
		return err
	}
	w.device(clean(name), typeChar|int(mode.Perm()), 0, major, minor)
	return w.err
}

// Close ends the archive. It does not close what it writes to.
func (w *Writer) Close() error {
	w.header("TRAILER!!!", 0, 0)
	w.pad(alignment)
	return w.err
}

func (w *Writer) entry(name string, mode int, content []byte) error {
	name = clean(name)
	if err := w.Dir(filepath.Dir(name)); err != nil {
		return err
	}
	w.header(name, mode, len(content))
	w.write(content)
	w.pad(4)
	return w.err
}

// header writes the header of an entry that is no device.
func (w *Writer) header(name string, mode, size int) { w.device(name, mode, size, 0, 0) }

// device writes a header; the numbers are 8 hexadecimal digits each, in the
// order that the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
// gives.
func (w *Writer) device(name string, mode, size, major, minor int) {
	w.inode++
	const links, checksum = 1, 0
	var b strings.Builder
	b.WriteString("070701")
	for _, field := range []int{w.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name) + 1, checksum} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(name)
	b.WriteByte(0)
	w.write([]byte(b.String()))
	w.pad(4)
}

func (w *Writer) pad(to int64) {
	if rest := w.written % to; rest != 0 {
		w.write(make([]byte, to-rest))
	}
}

func (w *Writer) write(content []byte) {
	if w.err != nil {
		return
	}
	n, err := w.out.Write(content)
	w.written += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write the archive: %w", err)
	}
}

// clean makes a name relative to the root, which is ".".
func clean(name string) string {
	if name = strings.TrimPrefix(filepath.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}
