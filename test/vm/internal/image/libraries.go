package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// libraryDir is where Debian keeps the libraries of this architecture.
const libraryDir = "usr/lib/x86_64-linux-gnu"

// withLibraries returns the programs, and every library that one of them loads
// at its start, as paths below the tree.
func withLibraries(tree string, programs []string) ([]string, error) {
	const linker = libraryDir + "/ld-linux-x86-64.so.2"
	out := append([]string{linker, "usr/lib64/ld-linux-x86-64.so.2"}, programs...)
	seen := map[string]bool{linker: true}
	for i := 2; i < len(out); i++ {
		needed, err := imports(filepath.Join(tree, out[i]))
		if err != nil {
			return nil, fmt.Errorf("find the libraries of %s: %w", out[i], err)
		}
		for _, library := range needed {
			name := filepath.Join(libraryDir, library)
			if seen[name] {
				continue
			}
			seen[name] = true
			if _, err := os.Stat(filepath.Join(tree, name)); err != nil {
				return nil, fmt.Errorf("%s needs %s, which is in no package: %w", out[i], library, err)
			}
			out = append(out, name)
		}
	}
	return out, nil
}

func imports(path string) (needed []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.ImportedLibraries()
}
