package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// node is a machine on which a plugin runs: an object in the API server, and
// the folders of a kubelet and of a container runtime. It stays when a plugin
// ends.
type node struct {
	t *testing.T
	// name is that of the Node object, which also begins the names of claims.
	name string
	// dir is kubelet's root folder, with the runtime's CDI folder in it.
	dir string
	// kubeconfig and hostRoot are what the next plugin is started with.
	kubeconfig string
	hostRoot   string

	serial  int
	plugins []*plugin
	// all is a claim for each GPU, made when first needed.
	all []claim
}

// newNode returns a node on which nothing ever happened, as far as the plugin
// can tell. Making one takes a second, mostly for the files of the simulated
// machine, so those of tests that went well are used again.
func newNode(t *testing.T) *node {
	t.Helper()
	bed.mu.Lock()
	var n *node
	if last := len(bed.idle) - 1; last >= 0 {
		n, bed.idle = bed.idle[last], bed.idle[:last]
	} else {
		bed.serial++
		n = &node{name: fmt.Sprintf("%s-%d", bed.namespace, bed.serial), dir: filepath.Join(bed.scratch, fmt.Sprintf("n%d", bed.serial))}
		bed.made = append(bed.made, n.name)
	}
	bed.mu.Unlock()
	n.t, n.kubeconfig, n.hostRoot = t, bed.kubeconfig, "/"
	if !exists(n.dir) {
		if _, err := draclient.CreateNode(t.Context(), bed.client, n.name); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(n.registrarDir(), 0o750), os.MkdirAll(n.cdiDir(), 0o755)); err != nil { //nolint:gosec // as on a real node
		t.Fatal(err)
	}
	t.Cleanup(n.giveBack)
	return n
}

// giveBack ends the plugins and shows what they said if the test failed. The
// node of a failed test is not used again.
func (n *node) giveBack() {
	for _, p := range n.plugins {
		p.end()
		if n.t.Failed() {
			n.t.Logf("log of %s:\n%s", p, p.log)
		}
	}
	n.plugins = nil
	if n.t.Failed() {
		return
	}
	if err := n.wipe(); err != nil {
		n.t.Error(err)
		return
	}
	bed.mu.Lock()
	defer bed.mu.Unlock()
	bed.idle = append(bed.idle, n)
}

// wipe removes everything but the simulated machine.
func (n *node) wipe() error {
	var errs []error
	for _, dir := range []string{n.dir, filepath.Join(n.dir, "plugins"), n.dataDir()} {
		entries, err := os.ReadDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			if slices.Contains([]string{"plugins", driverName, "simulated"}, entry.Name()) {
				continue
			}
			errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

func (n *node) dataDir() string      { return filepath.Join(n.dir, "plugins", driverName) }
func (n *node) registrarDir() string { return filepath.Join(n.dir, "plugins_registry") }
func (n *node) cdiDir() string       { return filepath.Join(n.dir, "cdi") }
func (n *node) pool() string         { return n.name + "/" + driverName }

// record is the path of a claim's record.
func (n *node) record(c claim) string {
	return filepath.Join(n.dataDir(), "claims", string(c.UID)+".json")
}

// left returns the files that are there and should not be when no claim is
// prepared: everything but what any plugin has, the sockets of those that run,
// and the few files that are kept for records to come.
func (n *node) left() []string {
	n.t.Helper()
	fine := map[string]bool{
		filepath.Join(n.dataDir(), "claims.lock"):              true,
		filepath.Join(n.dataDir(), "allocators.json"):          true,
		filepath.Join(n.dataDir(), "allocators.lock"):          true,
		filepath.Join(n.dataDir(), "device-plugin-kinds.json"): true,
		filepath.Join(n.dataDir(), "bin", "nvidia-cdi-hook"):   true,
		filepath.Join(n.dataDir(), "bin", "attach-hook"):       true,
	}
	for _, p := range n.plugins {
		if p.running() {
			fine[p.socket()], fine[p.registrarSocket()], fine[p.attachSocket()] = true, true, true
		}
	}
	var left []string
	for _, root := range []string{n.dataDir(), n.registrarDir(), n.cdiDir()} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // removed in between
				return nil
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains([]string{"simulated", "unreadable"}, entry.Name()):
				return fs.SkipDir
			case entry.IsDir() && entry.Name() == "spare":
				if spares := dirEntries(n.t, path); len(spares) > claimstore.MaxSpares*max(1, len(n.plugins)) {
					left = append(left, fmt.Sprintf("%s: %d files", path, len(spares)))
				}
				return fs.SkipDir
			case entry.IsDir() && strings.HasPrefix(path, filepath.Join(n.dataDir(), "dra-device-metadata")+"/"):
				left = append(left, path) // also when empty
			case entry.IsDir(), fine[path], filepath.Base(filepath.Dir(path)) == "vfs" && strings.HasSuffix(path, ".lock"):
			default:
				left = append(left, path)
			}
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return left
}

// mustBeClean fails the test if a claim has left anything.
func (n *node) mustBeClean() {
	n.t.Helper()
	if left := n.left(); len(left) > 0 {
		n.t.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// waitClean waits until nothing of any claim is left.
func (n *node) waitClean() {
	n.t.Helper()
	eventually(n.t, "everything removed", func() error {
		if left := n.left(); len(left) > 0 {
			return errors.New("left behind:\n" + strings.Join(left, "\n"))
		}
		return nil
	})
}

func (n *node) write(path, content string) {
	n.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil { //nolint:gosec // as on a real node
		n.t.Fatal(err)
	}
}

func (n *node) remove(path string) {
	n.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		n.t.Fatal(err)
	}
}
