package sharedlib

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// FromCompiler returns a finder that asks the C compiler where it would take
// a library from. cc is a command line as in the environment variable CC.
func FromCompiler(ctx context.Context, cc string) (Finder, error) {
	words := strings.Fields(cc)
	if len(words) == 0 {
		return nil, fmt.Errorf("no C compiler is named: set CC, for example to gcc")
	}
	return func(soname string) (string, error) {
		args := append(words[1:len(words):len(words)], "-print-file-name="+soname)
		out, err := exec.CommandContext(ctx, words[0], args...).Output()
		if err != nil {
			return "", fmt.Errorf("asking %s for the library %s: %w", cc, soname, err)
		}
		file := strings.TrimSpace(string(out))
		// A compiler that does not know the library repeats its name.
		if !filepath.IsAbs(file) {
			return "", fmt.Errorf("%s does not know the library %s: install the package that holds it", cc, soname)
		}
		return filepath.Clean(file), nil
	}, nil
}
