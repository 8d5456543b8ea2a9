package network

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Probe says which kind of link the kernel lacks, by making one of each in a
// network namespace that ends with the probe.
func Probe() error {
	result := make(chan error, 1)
	go func() {
		// The thread, and with it the namespace, ends with this goroutine.
		runtime.LockOSThread()
		result <- probe()
	}()
	return <-result
}

func probe() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("this machine lets us make no network namespace: %w; run as root outside a restricted container", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "probe1"}); err != nil {
		return fmt.Errorf("the kernel makes no veth link: %w; try modprobe veth", err)
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name = "probe2"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("the kernel makes no bridge: %w; try modprobe bridge", err)
	}
	return nil
}

// isGone recognizes the kernel's answer about a link that does not exist.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL)
}
