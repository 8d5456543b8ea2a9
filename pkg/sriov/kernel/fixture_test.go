package kernel

import (
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/netnstest"
)

// newKernel returns the kernel with an empty network namespace as the host's.
func newKernel(t *testing.T) (*Netlink, *os.File) {
	t.Helper()
	netns := netnstest.New(t)
	k, err := New(netnstest.Path(netns))
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
	netns := netnstest.New(t)
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
