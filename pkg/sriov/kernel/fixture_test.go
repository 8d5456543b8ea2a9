package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNetns makes a network namespace that ends with the test.
func newNetns(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		file, err := unshared()
		done <- result{file, err}
	}()
	made := <-done
	if made.err != nil {
		t.Fatal(made.err)
	}
	t.Cleanup(func() { _ = made.file.Close() })
	return made.file
}

// unshared makes a network namespace. The thread goes back to its own one, for
// the first thread of a program never ends and would keep the new one.
func unshared() (*os.File, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err := errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)); err != nil {
		return nil, err
	}
	runtime.UnlockOSThread()
	return file, nil
}

func pathOf(netns *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", netns.Fd()) }

// newKernel returns the kernel with an empty network namespace as the host's.
func newKernel(t *testing.T) (*Netlink, *os.File) {
	t.Helper()
	netns := newNetns(t)
	k, err := New(pathOf(netns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.host.close(); err != nil {
			t.Error(err)
		}
	})
	return k, netns
}

func openNamespace(t *testing.T, k *Netlink) (Namespace, *os.File) {
	t.Helper()
	netns := newNetns(t)
	n, err := k.Open(netns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, netns
}

// addVeth makes a pair of interfaces in a namespace.
func addVeth(t *testing.T, n Namespace, name, peer string) {
	t.Helper()
	own, ok := n.(*namespace)
	if !ok {
		t.Fatalf("%T is no namespace of ours", n)
	}
	if err := own.handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		t.Fatalf("make the interfaces %s and %s: %v", name, peer, err)
	}
}

func find(t *testing.T, n Namespace, name string) Link {
	t.Helper()
	links, err := n.Links()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
	if at < 0 {
		t.Fatalf("there is no interface %s, only %+v", name, links)
	}
	return links[at]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
