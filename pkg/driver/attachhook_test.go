package driver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
)

// hookProgram is the attach hook as a container runtime runs it, for a
// container whose network namespace is the test's own making.
type hookProgram struct {
	t     *testing.T
	path  string
	state []byte
	// bound is where the namespace is bound.
	bound string
}

func newHookProgram(t *testing.T) *hookProgram {
	t.Helper()
	needsRoot(t)
	dir := t.TempDir()
	h := &hookProgram{t: t, path: filepath.Join(dir, "attach-hook"), bound: filepath.Join(dir, "netns")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", h.path, "../../cmd/attach-hook").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	process := exec.Command("cat") // ends with its input
	process.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	input, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Skipf("no network namespace to be had: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(input.Close(), process.Wait()); err != nil {
			t.Error(err)
		}
	})
	proc := fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid)
	if err := os.Symlink(proc, h.bound); err != nil {
		t.Fatal(err)
	}
	// As containerd does it: only the sandbox's own bundle tells where the
	// namespace is bound.
	h.bundle(filepath.Join(dir, "container"), proc)
	h.bundle(filepath.Join(dir, "sandbox-1"), h.bound)
	h.state, err = json.Marshal(map[string]any{
		"ociVersion": "1.2.0", "id": "container", "status": "creating",
		"pid": process.Process.Pid, "bundle": filepath.Join(dir, "container"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hookProgram) bundle(path, netns string) {
	h.t.Helper()
	config, err := json.Marshal(map[string]any{
		"annotations": map[string]string{
			"io.kubernetes.cri.sandbox-id": "sandbox-1", "io.kubernetes.cri.sandbox-namespace": "ns",
			"io.kubernetes.cri.sandbox-name": "pod-a", "io.kubernetes.cri.sandbox-uid": "pod-a",
		},
		"linux": map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "network", "path": netns}}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "config.json"), config, 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

// command returns the hook as the claim's CDI spec has it.
func (h *hookProgram) command(n *attachNode, wait string) *exec.Cmd {
	args := n.hooks("vf", "a")[0].Args
	cmd := exec.CommandContext(h.t.Context(), h.path, append(args[1:], "--wait="+wait)...)
	cmd.Stdin = bytes.NewReader(h.state)
	cmd.Env = []string{}
	return cmd
}

func (h *hookProgram) run(n *attachNode, wait string) (stderr string, err error) {
	cmd := h.command(n, wait)
	messages := &bytes.Buffer{}
	cmd.Stderr = messages
	err = cmd.Run()
	return messages.String(), err
}

func (h *hookProgram) mustRun(n *attachNode) {
	h.t.Helper()
	if stderr, err := h.run(n, "30s"); err != nil || stderr != "" {
		h.t.Fatalf("%v: %s", err, stderr)
	}
}

func (h *hookProgram) mustFail(n *attachNode, wait, want string) {
	h.t.Helper()
	stderr, err := h.run(n, wait)
	if err == nil || stderr != want+"\n" {
		h.t.Errorf("%v, stderr %q, want %q", err, stderr, want)
	}
}

// The device is called lo, because the namespace has that interface.
func hookNode(t *testing.T) (*attachNode, *Driver) {
	t.Helper()
	n := newAttachNode(t, "lo")
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	n.bootID = strings.TrimSpace(string(boot))
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"lo"}))
	return n, d
}

func TestHookAttaches(t *testing.T) {
	h := newHookProgram(t)
	n, d := hookNode(t)
	stop := n.serve(d)
	n.vfs.set(func(f *fakeVFs) { f.fail["lo"] = errors.New("link\nrefused") })
	h.mustFail(n, "30s", `attach-hook: claim ns/claim-a: not attached to pod ns/pod-a: device "lo" (request "r0"): link; refused`)

	n.vfs.set(func(f *fakeVFs) { delete(f.fail, "lo") })
	h.mustRun(n)
	r := n.record("a")
	if len(r.Attached) != 1 || r.Attached[0].Sandbox.Path != h.bound || r.Attached[0].Sandbox.ID != "sandbox-1" || r.Attached[0].Sandbox.Pod.Name != "pod-a" {
		t.Errorf("unexpected sandbox: %+v", r.Attached)
	}

	// A restarted container needs no plugin.
	stop()
	h.mustRun(n)

	// But it does if the record is of another namespace, or another boot.
	for _, change := range []func(){
		func() { r.Attached[0].Sandbox.Namespace = "0:1" },
		func() { r.BootID = "boot-1" },
		func() { r.Attached[0].Devices[0].Attachment.Interface = "gone" },
		func() { r.Attached[0].Sandbox.ID = "sandbox-0" },
		func() { r.Attached = nil },
	} {
		*r = *n.record("a")
		change()
		before := n.record("a")
		if err := d.store.Save(r); err != nil {
			t.Fatal(err)
		}
		h.mustFail(n, "50ms", "attach-hook: claim ns/claim-a: its network devices are not attached to pod ns/pod-a: waited 50ms for the kubelet plugin on this node: no socket in "+
			filepath.Join(n.dataDir(), "attach")+": see that the plugin's pod runs here")
		if err := d.store.Save(before); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHookWaitsForThePlugin(t *testing.T) {
	h := newHookProgram(t)
	n, d := hookNode(t)
	// A plugin that was killed, and one that hangs.
	dir := filepath.Join(n.dataDir(), attachsocket.Folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{"dead.sock", "hanging.sock"} {
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if name == "dead.sock" {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	cmd := h.command(n, "60s")
	messages := &bytes.Buffer{}
	cmd.Stderr = messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.serve(d)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, messages)
	}
	if diff := cmp.Diff(map[string][]string{"sandbox-1": {"lo"}}, attachedTo(n.record("a"))); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
}
