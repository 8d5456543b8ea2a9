package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxSize is how large the program may be, in bytes: a node runs it at every
// start of a container.
const maxSize = 5_000_000

// compile returns the program as the image has it.
func compile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attach-hook")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestProgramIsSmallAndStatic(t *testing.T) {
	path := compile(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= maxSize {
		t.Errorf("%d bytes, want less than %d", info.Size(), maxSize)
	}
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it is linked dynamically: the host's C library may be another")
		}
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// What the program imports is loaded at every start of a container.
func TestProgramImportsLittle(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		switch path {
		case "golang.org/x/sys/unix",
			"github.com/eks-hybrid-dra/eks-hybrid-dra/cmd/attach-hook",
			"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket":
		default:
			t.Errorf("it imports %s", path)
		}
	}
}
