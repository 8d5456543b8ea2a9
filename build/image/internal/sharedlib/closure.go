package sharedlib

import (
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
)

// Finder returns the file of the shared library with the given soname.
type Finder func(soname string) (file string, err error)

// Set is what dynamically linked programs need besides themselves.
type Set struct {
	// Interpreter is the absolute path at which the kernel looks for the
	// dynamic loader. It is empty if no program is dynamically linked.
	Interpreter string
	// Files maps the soname of each library, the loader's own included, to
	// the file on this machine that holds it.
	Files map[string]string
}

// Sonames returns the names of the libraries in alphabetical order.
func (s Set) Sonames() []string {
	return slices.Sorted(maps.Keys(s.Files))
}

// Closure returns everything that the programs need, directly or through
// other libraries. The sonames in atRunTime are added if any program is
// dynamically linked: libraries that it opens while it runs need them, and no
// ELF header tells so.
func Closure(programs []string, atRunTime []string, find Finder) (Set, error) {
	set := Set{Files: map[string]string{}}
	var pending []string
	for _, file := range programs {
		header, err := Read(file)
		if err != nil {
			return Set{}, err
		}
		if header.Interpreter == "" {
			continue
		}
		if set.Interpreter != "" && set.Interpreter != header.Interpreter {
			return Set{}, fmt.Errorf("%s asks for the loader %s, other programs for %s: link all with the same C library",
				file, header.Interpreter, set.Interpreter)
		}
		set.Interpreter = header.Interpreter
		pending = append(pending, header.Needed...)
	}
	if set.Interpreter == "" {
		return set, nil
	}
	pending = append(pending, path.Base(set.Interpreter))
	pending = append(pending, atRunTime...)
	return set, set.add(pending, find)
}

func (s Set) add(pending []string, find Finder) error {
	for len(pending) > 0 {
		soname := pending[0]
		pending = pending[1:]
		if _, known := s.Files[soname]; known {
			continue
		}
		file, err := find(soname)
		if err != nil {
			return err
		}
		header, err := Read(file)
		if err != nil {
			return fmt.Errorf("reading the library %s: %w", soname, err)
		}
		s.Files[soname] = file
		pending = append(pending, header.Needed...)
	}
	return nil
}

// Header is the part of an ELF file's header that says where it runs.
type Header struct {
	Machine elf.Machine
	// Interpreter is the dynamic loader; empty for a static program and for
	// a library.
	Interpreter string
	// Needed are the sonames that the loader must find.
	Needed []string
}

// Read reads the header of an ELF file.
func Read(file string) (header Header, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return Header{}, fmt.Errorf("reading %s as an ELF file: %w", file, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	header.Machine = f.Machine
	for _, segment := range f.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(name, 0); err != nil {
			return Header{}, fmt.Errorf("reading the interpreter of %s: %w", file, err)
		}
		// The name ends with a NUL.
		header.Interpreter = string(name[:max(0, len(name)-1)])
	}
	// A static program has no dynamic section, for which this is an empty
	// list and no error.
	header.Needed, err = f.ImportedLibraries()
	if err != nil {
		return Header{}, fmt.Errorf("reading the libraries that %s needs: %w", file, err)
	}
	return header, nil
}
