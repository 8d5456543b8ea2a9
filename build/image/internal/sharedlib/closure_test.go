package sharedlib

import (
	"context"
	"os"
	"strings"
	"testing"
)

func TestFromCompiler(t *testing.T) {
	find, err := FromCompiler(t.Context(), "gcc -m64")
	if err != nil {
		t.Fatal(err)
	}
	file, err := find("libc.so.6")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err != nil {
		t.Errorf("libc.so.6 was said to be at %s: %v", file, err)
	}

	for _, tc := range []struct {
		name, cc, soname, want string
	}{
		{"unknown library", "gcc", "libnowhere.so.9", "gcc does not know the library libnowhere.so.9"},
		{"unknown compiler", "no-such-compiler", "libc.so.6", "asking no-such-compiler for the library libc.so.6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			find, err := FromCompiler(t.Context(), tc.cc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := find(tc.soname); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}

	if _, err := FromCompiler(context.Background(), " "); err == nil {
		t.Error("an empty compiler command was accepted")
	}
}

func TestReadRefusesWhatIsNoProgram(t *testing.T) {
	file := t.TempDir() + "/text"
	if err := os.WriteFile(file, []byte("hello, world: longer than an ELF header's magic"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %s", err, file)
	}
}
