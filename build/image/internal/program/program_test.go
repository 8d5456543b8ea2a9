package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompileFailureNamesProgramAndCause(t *testing.T) {
	module := t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(module, "go.mod"), []byte("module broken\n\ngo 1.26\n"), 0o644),
		os.WriteFile(filepath.Join(module, "main.go"), []byte("package main\n\nfunc main() { missing() }\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	compiler := Compiler{Module: module, OutputDir: t.TempDir(), OS: "linux", Arch: "amd64"}
	_, err := compiler.Compile(t.Context(), Program{Name: "broken", Package: ".", Linkage: Pure})
	if err == nil {
		t.Fatal("a program that does not compile was compiled")
	}
	for _, want := range []string{"compiling broken from .", "undefined: missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}
