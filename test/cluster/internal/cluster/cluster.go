package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cgroup"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/network"
)

// How long each part of a start may take on a busy machine.
const (
	supervisorTimeout = 30 * time.Second
	apiTimeout        = 3 * time.Minute
	containerdTimeout = time.Minute
	nodeTimeout       = 3 * time.Minute
)

// Cluster is the cluster of one state folder.
type Cluster struct {
	// Name is what a person calls it.
	Name  string
	State config.State
	// Out receives progress lines.
	Out io.Writer
}

// step runs one part of a long order and prints how long it took.
func (c *Cluster) step(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(c.Out, "%-36s %6.1fs\n", what, time.Since(start).Seconds())
	return nil
}

// lock makes sure that only one order at a time changes the cluster. The lock
// is on the state folder itself.
func (c *Cluster) lock(ctx context.Context, create bool) (unlock func() error, err error) {
	for {
		if create {
			if err := os.MkdirAll(c.State.Dir, 0o700); err != nil {
				return nil, fmt.Errorf("make the state folder: %w", err)
			}
		}
		dir, err := os.Open(c.State.Dir)
		if err != nil {
			return nil, fmt.Errorf("open the state folder: %w", err)
		}
		if err := c.flock(ctx, dir); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		// A `down` that held the lock has removed the folder.
		locked, err1 := dir.Stat()
		current, err2 := os.Stat(c.State.Dir)
		if err1 == nil && err2 == nil && os.SameFile(locked, current) {
			return dir.Close, nil
		}
		if err := dir.Close(); err != nil {
			return nil, fmt.Errorf("close the state folder: %w", err)
		}
	}
}

func (c *Cluster) flock(ctx context.Context, dir *os.File) error {
	said := false
	return poll(ctx, 10*time.Minute, func() error {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) && !said {
			said = true
			fmt.Fprintf(c.Out, "another `cluster` command works on %s; waiting for it\n", c.State.Dir)
		}
		return err
	})
}

// Down removes every trace of the cluster. It is fine when there is none, or
// only half of one.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := c.lock(ctx, false)
	if errors.Is(err, os.ErrNotExist) {
		// Its cgroups and its link can outlive a folder that somebody removed.
		if err := c.clear(ctx); err != nil {
			return err
		}
		fmt.Fprintf(c.Out, "There is no cluster %s: %s does not exist. %s\n", c.Name, c.State.Dir, c.others())
		return nil
	}
	if err != nil {
		return err
	}
	err = c.step("Removing the cluster", func() error {
		if err := c.clear(ctx); err != nil {
			return err
		}
		if err := os.RemoveAll(c.State.Dir); err != nil {
			return fmt.Errorf("remove the state folder: %w", err)
		}
		return nil
	})
	return errors.Join(err, unlock())
}

// clear ends and removes everything but the state folder itself.
func (c *Cluster) clear(ctx context.Context) error {
	for _, role := range []config.Role{config.Node, config.ControlPlane} {
		if err := namespace.Kill(ctx, c.State, role); err != nil {
			return err
		}
	}
	if err := network.RemoveHost(c.State); err != nil {
		return err
	}
	if err := cgroup.Remove(ctx, c.State.CgroupName()); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.State.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the state folder: %w", err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(c.State.Path(entry.Name())); err != nil {
			return fmt.Errorf("empty the state folder: %w", err)
		}
	}
	return nil
}

// hopelessError is one that waiting does not mend.
type hopelessError struct{ error }

// Unwrap returns the error itself.
func (e hopelessError) Unwrap() error { return e.error }

// poll calls try until it succeeds, fails hopelessly, the time is over or the
// context ends; then it returns try's last error.
func poll(ctx context.Context, timeout time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		var hopeless hopelessError
		if err == nil || errors.As(err, &hopeless) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %w", timeout, err)
		}
	}
}
