package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// requestTimeout bounds the wait for an answer of the kernel. Some requests,
// such as those for VFs, wait for the NIC's firmware.
const requestTimeout = 20 * time.Second

// Netlink is the [Kernel] that we run on. Its methods, and those of its
// namespaces, may be called concurrently.
type Netlink struct {
	host *namespace
	// askDriver is set where netlink does not tell which PCI function an
	// interface belongs to: Linux does since 5.14 (IFLA_PARENT_DEV_NAME,
	// commit 00e77ed8e64d).
	askDriver bool
}

// New returns the kernel that we run on, with the host's network namespace at
// this path, such as /proc/1/ns/net.
//
// It switches the kernel's own words in errors on for all of the process, so
// the first call must come before netlink is used by others.
func New(hostNetnsPath string) (*Netlink, error) {
	if !nl.EnableErrorMessageReporting {
		nl.EnableErrorMessageReporting = true
	}
	k := &Netlink{askDriver: olderThan(5, 14)}
	file, err := openNetns(hostNetnsPath)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	if k.host, err = k.open(file); err != nil {
		return nil, fmt.Errorf("open the host's network namespace %s: %w", hostNetnsPath, err)
	}
	k.host.isHost = true
	return k, nil
}

// Host returns the host's network namespace. Closing it does nothing.
func (k *Netlink) Host() Namespace { return k.host }

// Open opens a network namespace by a descriptor, which it does not keep. Until
// it is closed, the namespace lives on, with what is in it.
func (k *Netlink) Open(netns *os.File) (Namespace, error) {
	if err := isNetns(netns); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep network namespace %s open: %w", netns.Name(), err)
	}
	return k.opened(os.NewFile(uintptr(fd), netns.Name()))
}

// OpenPath opens a network namespace by the path it is bound to. Until it is
// closed, the namespace lives on, with what is in it.
func (k *Netlink) OpenPath(path string) (Namespace, error) {
	file, err := openNetns(path)
	if err != nil {
		return nil, err
	}
	return k.opened(file)
}

func (k *Netlink) opened(file *os.File) (Namespace, error) {
	// A nil *namespace must not become an interface that is not nil.
	n, err := k.open(file)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func openNetns(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := isNetns(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// isNetns returns fs.ErrNotExist for a file to which no network namespace is
// bound, as it stays behind when the bind mount is gone.
func isNetns(file *os.File) error {
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("no network namespace is bound to %s: %w", file.Name(), fs.ErrNotExist)
	}
	return nil
}

// open makes sockets in a namespace. They stay there, whatever thread uses
// them. It takes over the file.
func (k *Netlink) open(file *os.File) (*namespace, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, errors.Join(fmt.Errorf("identify network namespace %s: %w", file.Name(), err), file.Close())
	}
	n := &namespace{id: fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), file: file, askDriver: k.askDriver}
	err := within(file, func() (err error) {
		n.handle, err = newHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		err = within(file, func() (err error) {
			n.raw, err = nl.GetNetlinkSocketAt(-1, -1, unix.NETLINK_ROUTE)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a netlink socket in network namespace %s: %w", file.Name(), err), n.close())
	}
	timeout := unix.NsecToTimeval(requestTimeout.Nanoseconds())
	// Both only store a number.
	_, _ = n.raw.SetSendTimeout(&timeout), n.raw.SetReceiveTimeout(&timeout)
	n.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: n.raw}}
	return n, nil
}

// newHandle opens a socket of one family in the network namespace of the
// thread.
func newHandle(family int) (*netlink.Handle, error) {
	handle, err := netlink.NewHandle(family)
	if err != nil {
		return nil, err
	}
	if err := handle.SetSocketTimeout(requestTimeout); err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return handle, nil
}

// within runs a function in a network namespace. A thread that cannot go back
// to its own namespace ends, so that nothing else runs in the wrong one.
func within(netns *os.File, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open this thread's network namespace: %w", err)
			return
		}
		err = unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("enter network namespace %s: %w", netns.Name(), err)
		} else {
			err = do()
		}
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		// It was only opened for reading.
		_ = own.Close()
		done <- err
	}()
	return <-done
}

// olderThan tells whether this kernel is older than a release.
func olderThan(major, minor int) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	var ourMajor, ourMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &ourMajor, &ourMinor); err != nil {
		return false
	}
	return ourMajor < major || ourMajor == major && ourMinor < minor
}
