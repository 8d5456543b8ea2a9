package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateRoot is where the cluster program keeps the state folders of clusters
// that are known by name.
const stateRoot = "/var/lib/eks-hybrid-dra-cluster"

// Lock keeps other programs that call Lock from working with the named cluster,
// until the returned function is called or this process ends. It waits for
// nobody: where another has the lock, the error says who. With E2E_KUBECONFIG
// set there is nothing to lock.
func Lock(name string) (unlock func() error, err error) {
	if os.Getenv("E2E_KUBECONFIG") != "" {
		return func() error { return nil }, nil
	}
	return lock(stateRoot, name)
}

// lock locks a file beside the cluster's state folder, which comes and goes with
// the cluster.
func lock(folder, name string) (unlock func() error, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the clusters' locks: %w", err)
	}
	path := filepath.Join(folder, name+".lock")
	// The file stays: one that is removed could be locked twice.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of cluster %s: %w", name, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, readErr := io.ReadAll(f)
		return nil, errors.Join(fmt.Errorf("the cluster %s is in use by %s; wait for its end, or end it", name, cmp.Or(strings.TrimSpace(string(holder)), "another program")), readErr, f.Close())
	}
	if err == nil {
		err = sign(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// sign writes into a locked file who has it.
func sign(f *os.File) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s (process %d, in %s, since %s)\n", filepath.Base(os.Args[0]), os.Getpid(), dir, time.Now().Format(time.DateTime))
	return err
}

// FindRunning returns the named cluster if it is up already, and nil if it is
// not. With E2E_KUBECONFIG set it returns nil: using that cluster is what is
// asked for.
func FindRunning(ctx context.Context, name string, steps Steps) (*Cluster, error) {
	if os.Getenv("E2E_KUBECONFIG") != "" {
		return nil, nil
	}
	root, err := Repository()
	if err != nil {
		return nil, err
	}
	t, err := findTool(ctx, name, steps)
	if err != nil {
		return nil, err
	}
	names, err := t.list(ctx)
	if err != nil || !slices.Contains(names, name) {
		return nil, err
	}
	return &Cluster{Root: root, Steps: steps, Kubeconfig: filepath.Join(stateRoot, name, "kubeconfig"), tool: &t}, nil
}
