package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// discover measures one look at a machine with 8 ports of 16 VFs each: files
// are read, the kernel's other answers are made up.
func (s *Suite) discover(ctx context.Context) error {
	root := filepath.Join(s.Work, "tree")
	family, err := newMachine(root)
	if err != nil {
		return err
	}
	for range s.Size.Looks {
		start := time.Now()
		found, err := family.Devices(ctx)
		took := time.Since(start)
		if err != nil {
			return fmt.Errorf("look at the machine in %s: %w", root, err)
		}
		if len(found.Devices) != ports*vfsPerPort || len(found.Faults) > 0 {
			return fmt.Errorf("look at the machine in %s: found %d VFs and the faults %v, want %d VFs", root, len(found.Devices), found.Faults, ports*vfsPerPort)
		}
		s.keep(discover, took)
	}
	return nil
}

// newMachine makes a machine's files below root.
func newMachine(root string) (*sriov.Family, error) {
	t, err := writeTree(filepath.Join(root, "sys"))
	if err != nil {
		return nil, fmt.Errorf("make the files of a machine: %w", err)
	}
	return sriov.New(sriov.Options{
		SysfsRoot: t.root, DevRoot: filepath.Join(root, "dev"), DataDir: filepath.Join(root, "data"), BootID: "1",
		Kernel: fakeKernel{t},
	}), nil
}

// fakeKernel is a kernel with a host and no pods.
type fakeKernel struct{ tree *tree }

func (k fakeKernel) Host() kernel.Namespace { return fakeHost{tree: k.tree} }

func (fakeKernel) Open(*os.File) (kernel.Namespace, error) { return nil, errNoPods }

func (fakeKernel) OpenPath(string) (kernel.Namespace, error) { return nil, errNoPods }

var errNoPods = errors.New("this kernel has no network namespace but the host's")

// fakeHost answers what a look asks. Whatever else it is asked is a mistake of
// this program.
type fakeHost struct {
	kernel.Namespace
	tree *tree
}

func (fakeHost) ID() string { return "0:1" }

func (h fakeHost) Links() ([]kernel.Link, error) { return h.tree.links, nil }

func (h fakeHost) RDMALinks() ([]kernel.RDMALink, error) { return h.tree.rdma, nil }

func (fakeHost) RDMAExclusive() (bool, error) { return false, nil }

func (fakeHost) Routes() ([]kernel.Route, error) { return nil, nil }

func (fakeHost) EswitchModes() (map[string]string, error) { return nil, nil }
