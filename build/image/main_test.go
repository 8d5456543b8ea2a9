package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/program"
)

// pureSource is a program that needs no C library.
const pureSource = `package main

import "fmt"

var greeting = "unset"

func main() { fmt.Println(greeting) }
`

// cgoSource is a program that opens a library while it runs, as go-nvml does.
const cgoSource = `package main

// #cgo LDFLAGS: -ldl -lm
// #include <dlfcn.h>
// #include <math.h>
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

func main() {
	for _, lib := range os.Args[1:] {
		soname := C.CString(lib)
		if C.dlopen(soname, C.RTLD_NOW) == nil {
			fmt.Println(C.GoString(C.dlerror()))
			os.Exit(1)
		}
		C.free(unsafe.Pointer(soname))
	}
	fmt.Println("cgo", C.cos(0))
}
`

// toys is the folder of the compiled programs. Compiling them takes longer
// than all tests, so that is done once.
var toys string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "toys")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		toys = filepath.Join(dir, "bin")
		if err := compileToys(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func compileToys(ctx context.Context, module string) error {
	for file, content := range map[string]string{
		"go.mod":       "module toys\n\ngo 1.26\n",
		"pure/main.go": pureSource,
		"cgo/main.go":  cgoSource,
	} {
		file = filepath.Join(module, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			return err
		}
	}
	compiler := program.Compiler{Module: module, OutputDir: toys, OS: "linux", Arch: "amd64"}
	for _, p := range []program.Program{
		{Name: "pure", Package: "./pure", Linkage: program.Pure, Variables: map[string]string{"main.greeting": "hello"}},
		{Name: "cgo", Package: "./cgo", Linkage: program.Dynamic},
		{Name: "static", Package: "./cgo", Linkage: program.Static},
	} {
		if _, err := compiler.Compile(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
