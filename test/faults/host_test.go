package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// ownHost gives the node a process table and a boot id of its own, in place of
// those of the machine that runs the tests.
func (n *node) ownHost(bootID string) {
	n.hostRoot = filepath.Join(n.dir, "host")
	n.write(filepath.Join(n.hostRoot, "proc/sys/kernel/random/boot_id"), bootID+"\n")
	n.write(filepath.Join(n.hostRoot, "proc/1/cgroup"), "0::/init.scope\n")
}

// runProcess shows a process of the pod, and returns what ends it.
func (n *node) runProcess(pod types.UID) (end func()) {
	dir := filepath.Join(n.hostRoot, "proc/4711")
	path := fmt.Sprintf("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod%s.slice/cri-containerd-c0ffee.scope",
		strings.ReplaceAll(string(pod), "-", "_"))
	n.write(filepath.Join(dir, "cgroup"), "0::"+path+"\n")
	return func() { n.remove(dir) }
}

// mount mounts something in a folder of the node until the test ends.
func (n *node) mount(source, target, kind string, flags uintptr, data string) {
	n.t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // as on a real node
		n.t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		n.t.Fatalf("mount %s: %v", target, err)
	}
	n.t.Cleanup(func() {
		for _, p := range n.plugins {
			p.end()
		}
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			n.t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// readOnly makes a folder read-only, and returns what makes it writable again.
func (n *node) readOnly(dir string) (writable func()) {
	n.t.Helper()
	n.mount(dir, dir, "", unix.MS_BIND, "")
	remount := func(flags uintptr) {
		n.t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			n.t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	return func() { remount(0) }
}

// fill uses up a file system to the last byte, and returns what frees it.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
