//go:build gpu

package realgpu

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// runWith runs a program that the edits bring, in a root folder with the
// device nodes and mounts of the edits, the C library of this machine, and
// /proc. It returns what the program prints.
func runWith(t *testing.T, edits device.Edits, program string, args ...string) string {
	t.Helper()
	box := &sandbox{t: t, root: t.TempDir()}
	type result struct {
		out  []byte
		err  error
		skip string
	}
	results := make(chan result)
	go func() {
		// The thread keeps its mount namespace to itself and ends with this
		// goroutine, because it is not unlocked. The mounts end with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); errors.Is(err, unix.EPERM) {
			results <- result{skip: "making a mount namespace takes root with CAP_SYS_ADMIN"}
			return
		} else if err != nil {
			results <- result{err: err}
			return
		}
		if err := box.fill(edits); err != nil {
			results <- result{err: err}
			return
		}
		cmd := exec.Command(box.program(program), args...)
		cmd.Env = append([]string{"LD_LIBRARY_PATH=" + strings.Join(box.folders, ":")}, box.env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: box.root, Cloneflags: unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		results <- result{out: out, err: err}
	}()
	r := <-results
	if r.skip != "" {
		t.Skip(r.skip)
	}
	if r.err != nil {
		t.Fatalf("run %s with the edits: %v\n%s", program, r.err, r.out)
	}
	return string(r.out)
}

// sandbox is a root folder that is filled by bind mounts.
type sandbox struct {
	t        *testing.T
	root     string
	env      []string
	folders  []string
	programs []string
}

func (s *sandbox) fill(edits device.Edits) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := s.bind("/proc", "/proc"); err != nil {
		return err
	}
	for _, e := range []*cdispec.ContainerEdits{edits.Common, edits.Device} {
		s.env = append(s.env, e.Env...)
		for _, node := range e.DeviceNodes {
			from := node.HostPath
			if from == "" {
				from = node.Path
			}
			if err := s.bind(from, node.Path); err != nil {
				return err
			}
		}
		for _, mount := range e.Mounts {
			if err := s.bind(mount.HostPath, mount.ContainerPath); err != nil {
				return err
			}
			if err := s.afterMount(mount); err != nil {
				return err
			}
		}
	}
	return nil
}

// afterMount does what the hooks and the image would do: the links by which
// libraries are found, and the C library that programs need.
func (s *sandbox) afterMount(mount *cdispec.Mount) error {
	folder, name := filepath.Split(mount.ContainerPath)
	base, _, isLibrary := strings.Cut(name, ".so.")
	if isLibrary {
		s.folders = append(s.folders, folder)
		if err := os.Symlink(name, filepath.Join(s.root, folder, base+".so.1")); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	}
	info, err := os.Stat(mount.HostPath)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return err
	}
	s.programs = append(s.programs, mount.ContainerPath)
	out, err := exec.Command("ldd", mount.HostPath).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not a dynamic executable")) {
		return nil // not every program of the driver is for this test
	}
	for _, file := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		if _, err := os.Stat(filepath.Join(s.root, file)); err == nil || strings.HasSuffix(file, ":") {
			continue
		}
		if err := s.bind(file, file); err != nil {
			return err
		}
	}
	return nil
}

func (s *sandbox) program(name string) string {
	for _, path := range s.programs {
		if filepath.Base(path) == name {
			return path
		}
	}
	return name
}

// bind shows a file or folder of this machine in the root folder.
func (s *sandbox) bind(from, to string) error {
	target := filepath.Join(s.root, to)
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	parent := filepath.Dir(target)
	if info.IsDir() {
		parent = target
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if !info.IsDir() {
		file, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	if err := unix.Mount(from, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind " + from + " to", Path: to, Err: err}
	}
	return nil
}
