package rootfs

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/oci"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/sharedlib"
)

// BinDir is the folder of all programs in the image.
const BinDir = "/usr/bin"

// libDir is the folder of all shared libraries in the image.
const libDir = "/lib64"

// Architecture is what differs between machines of different kinds.
type Architecture struct {
	// Machine is the ELF machine of the programs.
	Machine elf.Machine
	// MultiarchDir is the name of the folder below lib where Debian's C
	// library looks for shared libraries. Fedora's looks in lib64.
	MultiarchDir string
}

// ArchitectureOf returns what is known of the platform's machines.
func ArchitectureOf(platform v1.Platform) (Architecture, error) {
	known := map[string]Architecture{
		"amd64": {Machine: elf.EM_X86_64, MultiarchDir: "x86_64-linux-gnu"},
		"arm64": {Machine: elf.EM_AARCH64, MultiarchDir: "aarch64-linux-gnu"},
	}
	architecture, ok := known[platform.Architecture]
	if !ok || platform.OS != "linux" {
		return Architecture{}, fmt.Errorf("platform %s is not supported: use linux/amd64 or linux/arm64", platform)
	}
	return architecture, nil
}

// AtRunTime returns the libraries that an NVIDIA driver's libnvidia-ml.so.1
// needs when a program opens it: the parts of the C library (separate files
// before glibc 2.34, and still linked to by that name), and libgcc_s, without
// which glibc aborts a program that cancels a thread.
func AtRunTime() []string {
	return []string{"libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"}
}

// Base returns the entries that do not depend on what the programs do: they
// make a layer that changes only with the C library.
func Base(libraries sharedlib.Set, architecture Architecture) []oci.Entry {
	entries := []oci.Entry{
		{Path: "/etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"},
		{Path: "/etc/group", Mode: 0o644, Content: "root:x:0:\nnobody:x:65534:\n"},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	if libraries.Interpreter == "" {
		return entries
	}
	loader := path.Base(libraries.Interpreter)
	for _, soname := range libraries.Sonames() {
		entries = append(entries, oci.Entry{Path: path.Join(libDir, soname), Mode: 0o755, Source: libraries.Files[soname]})
	}
	if libraries.Interpreter != path.Join(libDir, loader) {
		entries = append(entries, link(libraries.Interpreter, path.Join(libDir, loader)))
	}
	// A C library has the folders that it searches compiled in, and each
	// distribution has others.
	return append(entries,
		link(path.Join("/lib", architecture.MultiarchDir), libDir),
		link(path.Join("/usr/lib", architecture.MultiarchDir), libDir),
		link("/usr/lib64", libDir))
}

// Program returns the entry of one program, after checking that it runs on
// the architecture.
func Program(name, file string, architecture Architecture) (oci.Entry, error) {
	if name == "" || strings.Contains(name, "/") {
		return oci.Entry{}, fmt.Errorf("the program name %q must be a plain file name", name)
	}
	header, err := sharedlib.Read(file)
	if err != nil {
		return oci.Entry{}, fmt.Errorf("checking the program %s: %w", name, err)
	}
	if header.Machine != architecture.Machine {
		return oci.Entry{}, fmt.Errorf("the program %s (%s) is built for %s, the image is for %s",
			name, file, header.Machine, architecture.Machine)
	}
	return oci.Entry{Path: path.Join(BinDir, name), Mode: 0o755, Source: file}, nil
}

func link(from, to string) oci.Entry {
	return oci.Entry{Path: from, Mode: fs.ModeSymlink | 0o777, Target: to}
}
