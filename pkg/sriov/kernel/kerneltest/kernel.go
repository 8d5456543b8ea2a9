package kerneltest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// Kernel is a kernel in memory. The zero values of its fields are those of a
// machine without oddities; they must not be changed while it is in use.
type Kernel struct {
	// Refuse, if not nil, is asked before each change; the change then fails
	// with its error. The operation is the name of the method.
	Refuse func(operation string, detail any) error
	// ReturnAfter is how many times the host's interfaces are listed before
	// those of a namespace that has ended are among them.
	ReturnAfter int
	// Exclusive tells whether RDMA devices belong to namespaces.
	Exclusive bool
	// PFRulesAddress makes a VF's own interface refuse another address once its
	// PF has given it one, as igb does.
	PFRulesAddress bool
	// NoCarrier keeps the links of interfaces from working.
	NoCarrier bool
	// AnnounceErr is the error of telling neighbours of addresses.
	AnnounceErr error
	// MaxMTU is the greatest MTU, 9000 if zero.
	MaxMTU int

	t    testing.TB
	dir  string
	host *Namespace

	mu        sync.Mutex
	nextIndex int
	open      int
	spaces    []*Namespace
	coming    []*kernel.Link
	countdown int
}

// New returns a kernel with a host's network namespace that has an interface lo.
func New(t testing.TB) *Kernel {
	t.Helper()
	k := &Kernel{t: t, dir: t.TempDir()}
	k.host = k.NewNamespace()
	return k
}

// NewNamespace makes a network namespace with an interface lo.
func (k *Kernel) NewNamespace() *Namespace {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	path := filepath.Join(k.dir, fmt.Sprintf("netns-%d", len(k.spaces)))
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		k.t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		k.t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		k.t.Fatalf("no inode of %s", path)
	}
	n := &Namespace{kernel: k, path: path, id: fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), inode: stat.Ino}
	k.spaces = append(k.spaces, n)
	n.add(kernel.Link{Name: "lo", Type: "loopback", Up: true})
	return n
}

// End ends a namespace: its path is gone, and interfaces with hardware go back
// to the host, down, with the names they had.
func (k *Kernel) End(n *Namespace) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := os.Remove(n.path); err != nil {
		k.t.Fatal(err)
	}
	n.ended = true
	k.countdown = k.ReturnAfter
	for _, link := range n.links {
		if link.Device != "" {
			link.Up = false
			k.coming = append(k.coming, link)
		}
	}
	n.links = nil
	k.host.rdma = append(k.host.rdma, n.rdma...)
	n.rdma = nil
	k.arrive()
}

// arrive gives the host what namespaces that have ended had, once it is time.
func (k *Kernel) arrive() {
	if len(k.coming) == 0 {
		return
	}
	if k.countdown > 0 {
		k.countdown--
		return
	}
	for _, link := range k.coming {
		for n := 0; k.host.byName(link.Name) != nil; n++ {
			link.Name = fmt.Sprintf("dev%d", n)
		}
		link.AltNames = slices.DeleteFunc(link.AltNames, func(name string) bool { return k.host.byName(name) != nil })
		k.host.links = append(k.host.links, link)
	}
	k.coming = nil
}

// Open is how many namespaces were opened and not closed.
func (k *Kernel) Open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.open
}

// Forget closes all open namespaces, as the end of a process does.
func (k *Kernel) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = 0
}

// HostNamespace returns the host's namespace, to set it up and look at it.
func (k *Kernel) HostNamespace() *Namespace { return k.host }

// Seam returns the kernel as the code under test knows it.
func (k *Kernel) Seam() kernel.Kernel { return seam{k} }

// seam implements [kernel.Kernel].
type seam struct{ *Kernel }

func (s seam) Host() kernel.Namespace { return handle{Namespace: s.host} }

func (s seam) Open(netns *os.File) (kernel.Namespace, error) {
	info, err := netns.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("no inode of %s", netns.Name())
	}
	return s.find(func(n *Namespace) bool { return n.inode == stat.Ino })
}

func (s seam) OpenPath(path string) (kernel.Namespace, error) {
	return s.find(func(n *Namespace) bool { return n.path == path && !n.ended })
}

func (s seam) find(is func(*Namespace) bool) (kernel.Namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := slices.IndexFunc(s.spaces, is)
	if n < 0 {
		return nil, fmt.Errorf("no network namespace: %w", fs.ErrNotExist)
	}
	s.open++
	return handle{Namespace: s.spaces[n], counted: true}, nil
}

// handle is an open namespace.
type handle struct {
	*Namespace
	counted bool
}

// Close implements [kernel.Namespace].
func (h handle) Close() error {
	if h.counted {
		h.kernel.mu.Lock()
		defer h.kernel.mu.Unlock()
		h.kernel.open--
	}
	return nil
}

// Watch implements [kernel.Namespace]. Nothing is ever announced.
func (h handle) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (k *Kernel) refuse(operation string, detail any) error {
	if k.Refuse == nil {
		return nil
	}
	return k.Refuse(operation, detail)
}
