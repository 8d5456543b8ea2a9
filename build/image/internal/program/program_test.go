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

func TestCompileSaysWhichPackageIsMissing(t *testing.T) {
	module := t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(module, "go.mod"), []byte("module cgo\n\ngo 1.26\n"), 0o644),
		os.WriteFile(filepath.Join(module, "main.go"), []byte("package main\n\nimport \"C\"\n\nfunc main() {}\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CC", "no-such-compiler")
	compiler := Compiler{Module: module, OutputDir: t.TempDir(), OS: "linux", Arch: "amd64"}
	_, err := compiler.Compile(t.Context(), Program{Name: "cgo", Package: ".", Linkage: Static})
	if err == nil || !strings.Contains(err.Error(), "install a C compiler") {
		t.Errorf("error %v, want one that names the package to install", err)
	}
}
