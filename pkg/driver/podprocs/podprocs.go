package podprocs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Table is the process table of a node.
type Table struct {
	root string

	mu sync.Mutex
	// next is the look at the table that begins when the one that goes on is
	// over. Nil if nobody waits for one.
	next    *look
	looking bool
}

// look is one look at all processes, for all who asked before it began.
type look struct {
	pods    map[types.UID]bool
	done    chan struct{}
	running map[types.UID]bool
	err     error
}

// New returns the process table in root, a procfs of the host, not of a
// container's own PID namespace.
func New(root string) *Table { return &Table{root: root} }

// Running returns those of the pods that have a process. A pod's processes are
// known by their cgroup, in which kubelet puts the pod's UID, with underscores
// for dashes where systemd manages cgroups.
//
// Those who ask at the same time share one look at the table, which takes a
// while on a machine with thousands of processes. It never began before any of
// them asked.
func (t *Table) Running(pods []types.UID) ([]types.UID, error) {
	if len(pods) == 0 {
		return nil, nil
	}
	l := t.join(pods)
	<-l.done
	if l.err != nil {
		return nil, l.err
	}
	var found []types.UID
	for _, uid := range pods {
		if l.running[uid] {
			found = append(found, uid)
		}
	}
	return found, nil
}

// join adds the pods to the look that begins next.
func (t *Table) join(pods []types.UID) *look {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = &look{pods: map[types.UID]bool{}, done: make(chan struct{}), running: map[types.UID]bool{}}
	}
	for _, uid := range pods {
		t.next.pods[uid] = true
	}
	if !t.looking {
		t.looking = true
		go t.lookUntilDone()
	}
	return t.next
}

// lookUntilDone looks until nobody waits for a look.
func (t *Table) lookUntilDone() {
	for {
		t.mu.Lock()
		l := t.next
		t.next = nil
		t.looking = l != nil
		t.mu.Unlock()
		if l == nil {
			return
		}
		l.err = t.read(l)
		close(l.done)
	}
}

func (t *Table) read(l *look) error {
	// The first process of a PID namespace is a container's own program, or
	// the host's init, which this is not.
	if self, err := os.Readlink(filepath.Join(t.root, "self")); err == nil && self == "1" {
		return fmt.Errorf("%s is the procfs of this container, not the host's: see --host-root", t.root)
	}
	names, err := processes(t.root)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	patterns := map[types.UID][2][]byte{}
	for uid := range l.pods {
		patterns[uid] = [2][]byte{[]byte("pod" + string(uid)), []byte("pod" + strings.ReplaceAll(string(uid), "-", "_"))}
	}
	seen := 0
	buffer := make([]byte, 4096)
	for _, name := range names {
		cgroups, err := readFile(filepath.Join(t.root, name, "cgroup"), &buffer)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // ended in between
			continue
		}
		if err != nil {
			return fmt.Errorf("read the cgroup of process %s: %w", name, err)
		}
		seen++
		for uid, p := range patterns {
			if bytes.Contains(cgroups, p[0]) || bytes.Contains(cgroups, p[1]) {
				l.running[uid] = true
			}
		}
	}
	if seen == 0 {
		return fmt.Errorf("%s shows no process: it is not the host's procfs", t.root)
	}
	return nil
}

// processes returns the names of the folders of processes.
func processes(root string) ([]string, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	ids := names[:0]
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil {
			ids = append(ids, name)
		}
	}
	return ids, nil
}

// readFile is [os.ReadFile] with half as many system calls, into a buffer that
// grows. What it returns is valid until the next call.
func readFile(path string, buffer *[]byte) (_ []byte, err error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for n := 0; ; {
		if n == len(*buffer) {
			*buffer = append(*buffer, make([]byte, n)...)
		}
		more, err := retry(func() (int, error) { return unix.Read(fd, (*buffer)[n:]) })
		if err != nil {
			return nil, err
		}
		if more == 0 {
			return (*buffer)[:n], nil
		}
		n += more
	}
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
