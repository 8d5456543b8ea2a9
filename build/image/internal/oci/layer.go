package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Entry is one thing in an image's file system: a folder, a symbolic link or
// a file, as Mode says. Parent folders need no entry of their own.
type Entry struct {
	// Path is absolute.
	Path string
	Mode fs.FileMode
	// Target is where a symbolic link points to.
	Target string
	// Source is the file on this machine that has a file's content.
	Source string
	// Content is a file's content where Source is empty.
	Content string
}

// NewLayer returns a layer with the entries.
func NewLayer(entries []Entry) (v1.Layer, error) {
	all, err := withParents(entries)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) {
		reader, writer := io.Pipe()
		go func() { writer.CloseWithError(write(writer, all)) }()
		return reader, nil
	}
	layer, err := tarball.LayerFromOpener(open,
		tarball.WithMediaType(types.OCILayer),
		// Images are built far more often than they are kept.
		tarball.WithCompressionLevel(gzip.BestSpeed),
		tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	return layer, nil
}

// withParents adds the folders that the entries lie in and sorts all by path.
func withParents(entries []Entry) ([]Entry, error) {
	byPath := map[string]Entry{}
	for _, e := range entries {
		if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path {
			return nil, fmt.Errorf("the path %q of an image's file must be absolute and clean", e.Path)
		}
		if _, twice := byPath[e.Path]; twice {
			return nil, fmt.Errorf("the path %s appears twice in one layer", e.Path)
		}
		byPath[e.Path] = e
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "/"; dir = path.Dir(dir) {
			if _, known := byPath[dir]; !known {
				byPath[dir] = Entry{Path: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	sorted := make([]Entry, 0, len(byPath))
	for _, e := range byPath {
		sorted = append(sorted, e)
	}
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return sorted, nil
}

func write(w io.Writer, entries []Entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("adding %s to a layer: %w", e.Path, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, e Entry) (err error) {
	header := &tar.Header{
		Name:    strings.TrimPrefix(e.Path, "/"),
		Mode:    unixMode(e.Mode),
		ModTime: time.Unix(0, 0),
		Format:  tar.FormatPAX,
	}
	var content io.Reader
	switch {
	case e.Mode.IsDir():
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case e.Mode.Type() == fs.ModeSymlink:
		header.Typeflag = tar.TypeSymlink
		header.Linkname = e.Target
	case e.Mode.IsRegular() && e.Source != "":
		file, err := os.Open(e.Source)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		header.Typeflag, header.Size, content = tar.TypeReg, info.Size(), file
	case e.Mode.IsRegular():
		header.Typeflag, header.Size = tar.TypeReg, int64(len(e.Content))
		content = bytes.NewBufferString(e.Content)
	default:
		return fmt.Errorf("file type %s is not supported in an image", e.Mode.Type())
	}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	_, err = io.Copy(tw, content)
	return err
}

func unixMode(mode fs.FileMode) int64 {
	const sticky = 0o1000
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= sticky
	}
	return bits
}
