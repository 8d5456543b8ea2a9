package podprocs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Table is the process table of a node.
type Table struct {
	root string
}

// New returns the process table in root, a procfs of the host, not of a
// container's own PID namespace.
func New(root string) *Table { return &Table{root: root} }

// Running returns those of the pods that have a process. A pod's processes are
// known by their cgroup, in which kubelet puts the pod's UID, with underscores
// for dashes where systemd manages cgroups.
func (t *Table) Running(pods []types.UID) ([]types.UID, error) {
	if len(pods) == 0 {
		return nil, nil
	}
	// The first process of a PID namespace is a container's own program, or
	// the host's init, which this is not.
	if self, err := os.Readlink(filepath.Join(t.root, "self")); err == nil && self == "1" {
		return nil, fmt.Errorf("%s is the procfs of this container, not the host's: see --host-root", t.root)
	}
	entries, err := os.ReadDir(t.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	running := map[types.UID]bool{}
	seen := 0
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		cgroups, err := os.ReadFile(filepath.Join(t.root, entry.Name(), "cgroup"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // ended in between
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the cgroup of process %s: %w", entry.Name(), err)
		}
		seen++
		for _, uid := range pods {
			if inPod(cgroups, uid) {
				running[uid] = true
			}
		}
	}
	if seen == 0 {
		return nil, fmt.Errorf("%s shows no process: it is not the host's procfs", t.root)
	}
	var found []types.UID
	for _, uid := range pods {
		if running[uid] {
			found = append(found, uid)
		}
	}
	return found, nil
}

func inPod(cgroups []byte, uid types.UID) bool {
	return bytes.Contains(cgroups, []byte("pod"+string(uid))) ||
		bytes.Contains(cgroups, []byte("pod"+strings.ReplaceAll(string(uid), "-", "_")))
}
