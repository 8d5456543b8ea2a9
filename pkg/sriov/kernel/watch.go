package kernel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// watchBuffer is how much may wait to be read. When hundreds of interfaces
// change at once, the kernel drops what does not fit, and says so.
const watchBuffer = 1 << 20

// kernelUevents is the group to which the kernel itself sends; 2 is udev's.
const kernelUevents = 1

// Watch calls changed once it listens, for what has changed before, and then
// after each change of an interface, and of a device that the kernel announces,
// until ctx is done. Several changes that come together are one call.
func (n *namespace) Watch(ctx context.Context, changed func()) error {
	links, err := n.subscribe(unix.NETLINK_ROUTE, 1<<(unix.RTNLGRP_LINK-1))
	if err != nil {
		return fmt.Errorf("watch the interfaces: %w", err)
	}
	devices, err := n.subscribe(unix.NETLINK_KOBJECT_UEVENT, kernelUevents)
	if err != nil {
		return errors.Join(fmt.Errorf("watch the devices: %w", err), links.Close())
	}
	changed()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- listen(ctx, links, func([]byte) bool { return true }, changed) }()
	go func() { done <- listen(ctx, devices, ueventMatters, changed) }()
	// When one ends, the other one is of no use.
	err = <-done
	cancel()
	return errors.Join(err, <-done)
}

// subscribe opens a socket in the namespace that gets what the kernel announces.
func (n *namespace) subscribe(family, group int) (*os.File, error) {
	var socket int
	err := within(n.file, func() (err error) {
		socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// Without the capability for it the usual size must do.
	_ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	if err := unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(group)}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to a netlink group: %w", err), unix.Close(socket))
	}
	return os.NewFile(uintptr(socket), "netlink"), nil
}

// listen reads until ctx is done, which is no error.
func listen(ctx context.Context, socket *os.File, matters func([]byte) bool, changed func()) error {
	stop := context.AfterFunc(ctx, func() {
		// The reader below sees it.
		_ = socket.Close()
	})
	defer func() {
		if stop() {
			// Nothing was written to it.
			_ = socket.Close()
		}
	}()
	raw, err := socket.SyscallConn()
	if err != nil {
		return ended(ctx, err)
	}
	buffer := make([]byte, 64<<10)
	for {
		var (
			news   bool
			broken error
		)
		err := raw.Read(func(fd uintptr) bool {
			news, broken = drain(int(fd), buffer, matters)
			// Returning false waits until there is more to read.
			return news || broken != nil
		})
		if news {
			changed()
		}
		if err = cmp.Or(broken, err); err != nil {
			return ended(ctx, err)
		}
	}
}

// ended returns no error where it was our doing that reading has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return fmt.Errorf("read what the kernel announces: %w", err)
	}
	return nil
}

// drain reads all that is there. What was lost, because there was too much,
// counts as news.
func drain(fd int, buffer []byte, matters func([]byte) bool) (news bool, err error) {
	for {
		size, from, err := unix.Recvfrom(fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return news, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			news = true
			continue
		case err != nil:
			return news, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 && matters(buffer[:size]) {
			news = true
		}
	}
}

// ueventMatters tells whether the kernel announces a device that can have to do
// with NICs: "action@path", then "KEY=value", each ended by a zero byte.
func ueventMatters(message []byte) bool {
	for field := range bytes.SplitSeq(message, []byte{0}) {
		if subsystem, ok := bytes.CutPrefix(field, []byte("SUBSYSTEM=")); ok {
			return slices.Contains([]string{"pci", "net", "infiniband", "infiniband_verbs", "infiniband_mad", "vfio"}, string(subsystem))
		}
	}
	return false
}
