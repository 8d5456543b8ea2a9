package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/sharedlib"
)

// build builds an image of the toys and returns the saved file.
func build(t *testing.T, more ...string) string {
	t.Helper()
	output := filepath.Join(t.TempDir(), "image.tar")
	args := append([]string{
		"--tag", "localhost/toys:test", "--output", output,
		"--binary", "pure=" + filepath.Join(toys, "pure"),
		"--binary", "cgo=" + filepath.Join(toys, "cgo"),
		"--binary", "static=" + filepath.Join(toys, "static"),
	}, more...)
	if err := run(t.Context(), args, t.Output()); err != nil {
		t.Fatal(err)
	}
	return output
}

func TestProgramsStartInTheImage(t *testing.T) {
	root := extract(t, build(t))

	checkLibraries(t, root)
	for file, want := range map[string]fs.FileMode{
		"tmp":            fs.ModeDir | fs.ModeSticky | 0o777,
		"etc/passwd":     0o644,
		"usr/bin/pure":   0o755,
		"usr/bin/cgo":    0o755,
		"usr/bin/static": 0o755,
	} {
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil {
			t.Errorf("the image lacks %s: %v", file, err)
			continue
		}
		if info.Mode() != want {
			t.Errorf("mode of %s: %v, want %v", file, info.Mode(), want)
		}
	}

	if os.Geteuid() != 0 {
		t.Log("not root: the programs are not run in the image's file system")
		return
	}
	for _, tc := range []struct {
		command []string
		want    string
	}{
		{[]string{"/usr/bin/pure"}, "hello\n"},
		{[]string{"/usr/bin/static"}, "cgo 1\n"},
		{[]string{"/usr/bin/cgo", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1"}, "cgo 1\n"},
	} {
		cmd := exec.CommandContext(t.Context(), tc.command[0], tc.command[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		cmd.Dir = "/"
		cmd.Env = []string{}
		got, err := cmd.CombinedOutput()
		if err != nil || string(got) != tc.want {
			t.Errorf("%v in the image: %v, output %q, want %q", tc.command, err, got, tc.want)
		}
	}
}

// checkLibraries checks for every ELF file below root that its loader and
// its libraries are there too.
func checkLibraries(t *testing.T, root string) {
	t.Helper()
	dynamic := 0
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		header, err := sharedlib.Read(file)
		if format := new(elf.FormatError); errors.As(err, &format) || errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		wanted := header.Needed
		for i, soname := range wanted {
			wanted[i] = filepath.Join("lib64", soname)
		}
		if header.Interpreter != "" {
			dynamic++
			wanted = append(wanted, header.Interpreter)
		}
		for _, lib := range wanted {
			if _, err := os.Stat(filepath.Join(root, lib)); err != nil {
				t.Errorf("%s needs %s: %v", file, lib, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if dynamic == 0 {
		t.Error("the image holds no dynamically linked program, so this test checked nothing")
	}
}

// extract unpacks all layers of a saved image into a new folder.
func extract(t *testing.T, file string) string {
	t.Helper()
	root := t.TempDir()
	contents := mutate.Extract(saved(t, file))
	defer func() {
		if err := contents.Close(); err != nil {
			t.Error(err)
		}
	}()
	reader := tar.NewReader(contents)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := extractOne(filepath.Join(root, header.Name), header, reader); err != nil {
			t.Fatal(err)
		}
	}
}

func extractOne(file string, header *tar.Header, content io.Reader) error {
	mode := header.FileInfo().Mode()
	switch header.Typeflag {
	case tar.TypeDir:
		// MkdirAll leaves a folder that an upper layer names again.
		return errors.Join(os.MkdirAll(file, mode.Perm()), os.Chmod(file, mode))
	case tar.TypeSymlink:
		// The folder's own root stands for the image's.
		target, err := filepath.Rel(filepath.Dir("/"+header.Name), header.Linkname)
		return errors.Join(err, os.Symlink(target, file))
	default:
		data, err := io.ReadAll(content)
		return errors.Join(err, os.WriteFile(file, data, mode.Perm()), os.Chmod(file, mode))
	}
}

func saved(t *testing.T, file string) v1.Image {
	t.Helper()
	tag, err := name.NewTag("localhost/toys:test")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestImageSaysWhatItIs(t *testing.T) {
	config, err := saved(t, build(t, "--title", "toys")).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.OS + "/" + config.Architecture; got != "linux/amd64" {
		t.Errorf("platform %s, want linux/amd64", got)
	}
	if diff := cmp.Diff([]string{"PATH=/usr/bin"}, config.Config.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if config.Config.User != "0:0" || len(config.Config.Entrypoint)+len(config.Config.Cmd) != 0 {
		t.Errorf("config %+v, want root and no command", config.Config)
	}
	for label, want := range map[string]string{
		"org.opencontainers.image.title":    "toys",
		"org.opencontainers.image.licenses": "Apache-2.0",
	} {
		if got := config.Config.Labels[label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	if !strings.HasPrefix(config.Config.Labels["org.opencontainers.image.version"], "v") {
		t.Errorf("labels %v: no version", config.Config.Labels)
	}
}

func TestTheSameFilesMakeTheSameImage(t *testing.T) {
	var files [2][]byte
	for i := range files {
		content, err := os.ReadFile(build(t))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = content
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("building the same image twice made different files")
	}
}

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/hybrid/toys:v1"

	file := build(t, "--push", ref)

	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Image(tag, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	want, err := saved(t, file).ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	got, err := pushed.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("the pushed image has configuration %s, the saved one %s", got, want)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output := "--output=" + filepath.Join(dir, "image.tar")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing to do", nil, "give --output, --push, or both"},
		{"stray argument", []string{output, "kubelet-plugin"}, `unexpected argument "kubelet-plugin"`},
		{"binary without name", []string{output, "--binary", "file"}, `--binary "file": it must be name=file`},
		{"binary in a folder", []string{output, "--binary", "a/b=" + self}, `"a/b" must be a plain file name`},
		{"no program", []string{output, "--binary", "script=" + script}, script + " as an ELF file"},
		{"other machine", []string{output, "--platform=linux/arm64", "--binary", "self=" + self}, "is built for EM_X86_64, the image is for EM_AARCH64"},
		{"unknown platform", []string{output, "--platform=windows/amd64", "--binary", "self=" + self}, "windows/amd64 is not supported"},
		{"program twice", []string{output, "--binary", "self=" + self, "--tag", "Not A Tag"}, `image tag "Not A Tag"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), tc.args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(dir, "image.tar*"))
	if err != nil || len(left) > 0 {
		t.Errorf("failed runs left %v (%v)", left, err)
	}
}
