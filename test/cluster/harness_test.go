package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/image"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/preflight"
)

// tool is the built cluster program and the state folder of one cluster.
type tool struct {
	program, name string
	state         config.State
}

// build compiles a program of this module without C, so that it also runs in an
// image from scratch.
func build(t *testing.T, pkg, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// newTool prepares a cluster that is removed after the test, whatever happens.
func newTool(t *testing.T, program, name string) *tool {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "cluster-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	state, err := config.NewState(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	c := &tool{program: program, name: name, state: state}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of %s:\n%s", name, c.tails())
		}
		if out, err := c.try("down"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

// tails returns the end of each log.
func (c *tool) tails() string {
	var b strings.Builder
	files, err := filepath.Glob(filepath.Join(c.state.Logs(), "*.log"))
	if err != nil {
		return err.Error()
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		fmt.Fprintf(&b, "==> %s (%v) <==\n%s\n", filepath.Base(file), err, content[max(0, len(content)-2000):])
	}
	return b.String()
}

func (c *tool) command(ctx context.Context, order string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.program, append([]string{order, "--name", c.name, "--state-dir", c.state.Dir}, args...)...)
}

func (c *tool) try(order string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	out, err := c.command(ctx, order, args...).CombinedOutput()
	return string(out), err
}

func (c *tool) do(t *testing.T, order string, args ...string) string {
	t.Helper()
	out, err := c.try(order, args...)
	if err != nil {
		t.Fatalf("cluster %s %s: %v\n%s", order, strings.Join(args, " "), err, out)
	}
	return out
}

// eventually repeats an order until its output is as wanted.
func (c *tool) eventually(t *testing.T, want string, order string, args ...string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out, err := c.try(order, args...)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("cluster %s %s does not give %q: %v\n%s", order, strings.Join(args, " "), want, err, out)
		}
	}
}

// apply creates objects from YAML.
func (c *tool) apply(t *testing.T, yaml string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := c.command(ctx, "kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(yaml)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// probeArchive packs the probe program into an image archive.
func probeArchive(t *testing.T) string {
	t.Helper()
	var archive bytes.Buffer
	if err := image.Write(&archive, "localhost/probe:1", build(t, "./probe", "probe")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "probe.tar")
	if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// pod is a pod of one container that runs the probe.
func pod(name, args string, hostNetwork bool) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  hostNetwork: %v
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{name: probe, image: "localhost/probe:1", args: [%s]}]
---
`, name, hostNetwork, args)
}

// noTrace fails the test if anything of the cluster is left. It waits a little
// for the machine's init, which has to collect the ended processes.
func (c *tool) noTrace(t *testing.T, namespaces map[string]bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		traces := c.traces(t, namespaces)
		if len(traces) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", traces)
		}
	}
}

// traces lists everything on this machine that belongs to the cluster: its
// link, cgroups, mounts, files, and the processes in the given namespaces.
func (c *tool) traces(t *testing.T, namespaces map[string]bool) []string {
	t.Helper()
	var found []string
	if _, err := net.InterfaceByName(c.state.HostLink()); err == nil {
		found = append(found, "link "+c.state.HostLink())
	}
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == c.state.CgroupName() {
			found = append(found, "cgroup "+path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(c.state.Dir)) {
		found = append(found, "mounts below "+c.state.Dir)
	}
	if _, err := os.Stat(c.state.Dir); err == nil {
		found = append(found, "folder "+c.state.Dir)
	}
	for process, in := range namespacesOfProcesses(t) {
		for _, namespace := range in {
			if namespaces[namespace] {
				found = append(found, process+" in "+namespace)
			}
		}
	}
	return found
}

// namespacesOfProcesses maps each process to its PID, mount and network
// namespace.
func namespacesOfProcesses(t *testing.T) map[string][]string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, dir := range dirs {
		for _, kind := range []string{"pid", "mnt", "net"} {
			// A process that ended meanwhile has none.
			if namespace, err := os.Readlink(filepath.Join(dir, "ns", kind)); err == nil {
				all[filepath.Base(dir)] = append(all[filepath.Base(dir)], namespace)
			}
		}
	}
	return all
}

// namespaces returns those of the cluster: of its init processes and of every
// process below them, pods included.
func (c *tool) namespaces(t *testing.T) map[string]bool {
	t.Helper()
	ours := map[string]bool{}
	for _, role := range config.Roles() {
		ours[strconv.Itoa(c.init(t, role))] = true
	}
	parents := parentsOfProcesses(t)
	below := func(pid string) bool {
		for ; pid != "" && pid != "0"; pid = parents[pid] {
			if ours[pid] {
				return true
			}
		}
		return false
	}
	found := map[string]bool{}
	for pid, in := range namespacesOfProcesses(t) {
		for _, namespace := range in {
			if below(pid) {
				found[namespace] = true
			}
		}
	}
	return found
}

// parentsOfProcesses maps process ids to their parents'.
func parentsOfProcesses(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	parents := map[string]string{}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// The name, in parentheses, can hold anything: proc_pid_stat(5).
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parents[filepath.Base(filepath.Dir(file))] = fields[1]
	}
	return parents
}

// needRoot skips where no cluster can run, and says why.
func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster takes long to build at first: not with -short")
	}
	if err := preflight.Root(); err != nil {
		t.Skip(err)
	}
	if err := errors.Join(preflight.Go(), preflight.Machine()); err != nil {
		t.Fatal(err)
	}
}
