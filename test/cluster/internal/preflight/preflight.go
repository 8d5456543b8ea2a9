package preflight

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cgroup"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/network"
)

// Root says how to become root, if the process is not.
func Root() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs namespaces and mounts, so root: run this with sudo")
	}
	return nil
}

// Go says that the go command is missing.
func Go() error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the go command is not in PATH: install Go (https://go.dev/dl), and use sudo --preserve-env=PATH")
	}
	return nil
}

// Machine returns everything that this machine lacks to run a cluster.
func Machine() error {
	if err := Root(); err != nil {
		return err
	}
	if err := capabilities(namespace.HasCapability); err != nil {
		return err
	}
	return errors.Join(network.Probe(), cgroup.Check())
}

// capabilities names each that is missing.
func capabilities(has func(number int) (bool, error)) error {
	var lacks []error
	for _, needed := range []struct {
		name   string
		number int
	}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		ok, err := has(needed.number)
		if err != nil {
			return err
		}
		if !ok {
			lacks = append(lacks, fmt.Errorf("the capability %s is missing: run outside a container, or in one started with --privileged", needed.name))
		}
	}
	return errors.Join(lacks...)
}
