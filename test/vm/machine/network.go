package machine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetwork calls do in a network namespace; "" is the present one. Sockets and
// processes that do makes stay there.
func inNetwork(path string, do func() error) error {
	if path == "" {
		return do()
	}
	done := make(chan error)
	go func() {
		// The thread is not given back: it ends with this function.
		runtime.LockOSThread()
		done <- func() (err error) {
			ns, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("open the network namespace: %w", err)
			}
			defer func() { err = errors.Join(err, ns.Close()) }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network namespace %s: %w", path, err)
			}
			return do()
		}()
	}()
	return <-done
}

// freePort returns an address of the loopback link on which nobody listens.
func freePort() (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String(), nil
}
