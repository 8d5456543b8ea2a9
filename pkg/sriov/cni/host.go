package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is the machine outside of the container that this process may be in.
type Host struct {
	// Root is where the host's / is mounted here. With "/" this process has
	// the host's mount namespace already.
	Root string
	// Netns is the path of the host's network namespace, as this process sees
	// it.
	Netns string
}

// look calls f on a thread of its own that is in the host's mount and network
// namespace, where paths mean what they mean to the host.
func (h *Host) look(f func() error) error { return h.onThread(h.enter, f) }

// run does the same, for an f that runs programs: they find themselves in
// /proc.
func (h *Host) run(f func() error) error {
	return h.onThread(func() error {
		foreign, err := h.foreignProcesses()
		if err != nil {
			return err
		}
		if err := h.enter(); err != nil || !foreign {
			return err
		}
		return ownProc()
	}, f)
}

// onThread calls enter and then f on a thread of its own. The thread ends with
// f: it could not be put back into this process's namespaces with certainty.
func (h *Host) onThread(enter, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// The first thread stands for the process in /proc and cannot end,
		// so another one must do. While this one is locked, the next
		// goroutine cannot get it.
		if unix.Gettid() == os.Getpid() {
			done <- h.onThread(enter, f)
			runtime.UnlockOSThread()
			return
		}
		// Locked and never unlocked: the runtime ends the thread.
		if err := enter(); err != nil {
			done <- fmt.Errorf("enter the host's namespaces: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// own tells whether the host's mount namespace is this process's.
func (h *Host) own() bool { return filepath.Clean(h.Root) == "/" }

// enter puts the calling thread into the host's namespaces.
func (h *Host) enter() error {
	// Both are opened first: afterwards their paths mean something else.
	netns, err := os.Open(h.Netns)
	if err != nil {
		return fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer netns.Close() //nolint:errcheck // it was only read
	if !h.own() {
		if err := h.enterMounts(); err != nil {
			return err
		}
	}
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace %s: %w", h.Netns, err)
	}
	return nil
}

func (h *Host) enterMounts() error {
	path := filepath.Join(h.Root, "proc/1/ns/mnt")
	mounts, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the host's mount namespace: is the host's / mounted at %s, with its /proc? %w", h.Root, err)
	}
	defer mounts.Close() //nolint:errcheck // it was only read
	// A thread that shares its root and working directory with others cannot
	// change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("stop sharing the working directory between threads: %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mount namespace %s: %w", path, err)
	}
	return nil
}

// foreignProcesses tells whether the host counts processes differently, as it
// does for every pod without hostPID.
func (h *Host) foreignProcesses() (bool, error) {
	if h.own() {
		return false, nil
	}
	host, err := os.Stat(filepath.Join(h.Root, "proc/1/ns/pid"))
	if err != nil {
		return false, fmt.Errorf("look at the host's process namespace: %w", err)
	}
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return false, fmt.Errorf("look at the own process namespace: %w", err)
	}
	return !os.SameFile(host, own), nil
}

// ownProc gives the calling thread, which is in the host's mount namespace, a
// copy of it with a /proc of its own. CNI plugins open
// /proc/<own pid>/task/<own thread>/ns/net to find the namespace they are in
// (pkg/ns of containernetworking/plugins); in the host's /proc those numbers
// are some other process. Mounts that the host makes go on appearing in the
// copy, but none goes the other way.
func ownProc() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy the host's mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from the host: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount a /proc for CNI plugins: %w", err)
	}
	return nil
}

// netnsAlive tells whether a network namespace is bound to a path on the host.
// The file itself may outlive the namespace.
func (h *Host) netnsAlive(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	alive := false
	err := h.look(func() error {
		var fs unix.Statfs_t
		err := unix.Statfs(path, &fs)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at the network namespace %s: %w", path, err)
		}
		alive = fs.Type == unix.NSFS_MAGIC
		return nil
	})
	return alive, err
}
