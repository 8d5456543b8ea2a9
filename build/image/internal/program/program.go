package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Linkage says how a program is linked, which decides where it can run.
type Linkage int

const (
	// Pure programs are Go only. They run on every Linux.
	Pure Linkage = iota
	// Static programs contain C code and the C library. They run on every
	// Linux, but cannot open shared libraries.
	Static
	// Dynamic programs contain C code and use shared libraries. They run
	// where a C library is that is not older than the one they were linked
	// with.
	Dynamic
)

// Program is one Go program.
type Program struct {
	// Name is the name of its file.
	Name string
	// Package is the import path of its main package, or a path that starts
	// with "./" below the module's root.
	Package string
	Linkage Linkage
	// Variables are string variables set at link time: "import/path.name" to
	// value. Those of packages that the program lacks do nothing.
	Variables map[string]string
}

// Compiler compiles programs of the module in the folder Module.
type Compiler struct {
	Module string
	// OutputDir gets one file per program. A program that is there already
	// and up to date is not linked again.
	OutputDir string
	OS, Arch  string
}

// Compile compiles the program and returns the path of its file.
func (c Compiler) Compile(ctx context.Context, p Program) (string, error) {
	output, err := filepath.Abs(filepath.Join(c.OutputDir, p.Name))
	if err != nil {
		return "", fmt.Errorf("finding the place for %s: %w", p.Name, err)
	}
	cmd := exec.CommandContext(ctx, "go", c.arguments(p, output)...)
	cmd.Dir = c.Module
	cmd.Env = append(os.Environ(), "GOOS="+c.OS, "GOARCH="+c.Arch, "CGO_ENABLED="+cgo(p.Linkage))
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("compiling %s from %s: %w%s\n%s", p.Name, p.Package, err, hint(messages.String()), messages.Bytes())
	}
	return output, nil
}

// arguments returns the arguments of the go command. They make the same file
// from the same source, wherever the module and the module cache lie.
func (c Compiler) arguments(p Program, output string) []string {
	linker := []string{"-s", "-w"}
	if p.Linkage == Static {
		linker = append(linker, "-linkmode=external", "-extldflags=-static")
	}
	for _, name := range sortedKeys(p.Variables) {
		linker = append(linker, "-X="+name+"="+p.Variables[name])
	}
	return []string{
		"build", "-trimpath", "-buildvcs=false",
		// Go's own resolver and user lookup: the image has no NSS modules. And
		// without gRPC's tracing pages the linker can drop a third of the
		// plugin: they look methods up by name, so that it must keep all.
		"-tags=netgo,osusergo,grpcnotrace",
		"-ldflags=" + strings.Join(linker, " "),
		"-o", output, p.Package,
	}
}

func cgo(l Linkage) string {
	if l == Pure {
		return "0"
	}
	return "1"
}

// hint returns the way out of the failures that are not the source's fault.
func hint(messages string) string {
	switch {
	case strings.Contains(messages, "C compiler") && strings.Contains(messages, "not found"):
		return ": install a C compiler, such as the package gcc"
	case strings.Contains(messages, "cannot find -lc"):
		return ": install the C library's libc.a (libc6-dev in Debian, glibc-static in Fedora)"
	default:
		return ""
	}
}
