package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// podTask is what a process in a pod is told to do: to add and to delete an
// attachment on its host.
type podTask struct {
	Root, Netns, CacheDir string
	// BinDir is a folder that the pod does not have.
	BinDir string
	Config []byte
	Call   Call
	// HostPID is the process whose namespaces are the host's.
	HostPID int
}

// podAnswer is what came of it: a result, and the errors as text.
type podAnswer struct {
	Result   Result
	Add, Del string
}

func actAsPod() int {
	var task podTask
	err := json.NewDecoder(os.Stdin).Decode(&task)
	if err == nil && task.Root != "/" {
		err = task.mountHost()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	networks := New(Options{Host: Host{Root: task.Root, Netns: task.Netns}, BinDirs: []string{task.BinDir}, CacheDir: task.CacheDir})
	var answer podAnswer
	answer.Result, err = networks.Add(context.Background(), task.Config, task.Call)
	answer.Add = fmt.Sprint(err)
	answer.Del = fmt.Sprint(networks.Del(context.Background(), task.Config, task.Call))
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mountHost makes the process, which has namespaces of its own, into one of a
// privileged pod: the host's / is mounted at a folder, the host's /proc below
// it, and /proc shows the pod's processes only.
func (task *podTask) mountHost() error {
	proc := filepath.Join(task.Root, "proc")
	ns := filepath.Join(proc, "1/ns")
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		// The folder of the mount itself stands for the host's /.
		func() error { return unix.Mount("tmpfs", task.Root, "tmpfs", 0, "") },
		func() error { return os.MkdirAll(ns, 0o700) },
		func() error { return os.Mkdir(filepath.Join(task.Root, "hostproc"), 0o700) },
		func() error {
			return unix.Mount("/proc", filepath.Join(task.Root, "hostproc"), "", unix.MS_BIND|unix.MS_REC, "")
		},
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return unix.Mount("tmpfs", task.BinDir, "tmpfs", 0, "") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, kind := range []string{"mnt", "pid"} {
		if err := os.Symlink(fmt.Sprintf("%s/hostproc/%d/ns/%s", task.Root, task.HostPID, kind), filepath.Join(ns, kind)); err != nil {
			return err
		}
	}
	return nil
}

// newPod returns a process that adds and deletes an attachment.
func newPod(t *testing.T, root string, n *node, config []byte, call Call) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	task, err := json.Marshal(podTask{
		Root: root, Netns: n.Host.Netns, BinDir: n.BinDirs[0], CacheDir: n.CacheDir,
		Config: config, Call: call, HostPID: os.Getpid(),
	})
	if err != nil {
		t.Fatal(err)
	}
	pod := exec.CommandContext(t.Context(), self)
	pod.Env = []string{"ACT_AS_POD=true"}
	pod.Stdin = bytes.NewReader(task)
	return pod
}

// inPod adds and deletes an attachment from within a pod.
func inPod(t *testing.T, n *node, config []byte, call Call) podAnswer {
	t.Helper()
	pod := newPod(t, t.TempDir(), n, config, call)
	var stdout, stderr bytes.Buffer
	pod.Stdout, pod.Stderr = &stdout, &stderr
	pod.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	if err := pod.Run(); err != nil {
		t.Fatalf("the process in the pod: %v: %s", err, &stderr)
	}
	var answer podAnswer
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		t.Fatalf("the process in the pod answered %q: %v", &stdout, err)
	}
	return answer
}

func TestPluginRunsOnTheHostFromWithinAPod(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake"))
	config := list(t, "net", fakeConfig{Type: "fake", Log: n.Log, Result: json.RawMessage(`{}`)})
	answer := inPod(t, n, config, newCall(newNetns(t)))
	if answer.Add != "<nil>" || answer.Del != "<nil>" {
		t.Fatalf("unexpected errors: add: %s; delete: %s", answer.Add, answer.Del)
	}
	got := calls(t, n.Log)
	if diff := cmp.Diff([]string{"fake ADD", "fake DEL"}, said(got)); diff != "" {
		t.Fatalf("unexpected calls (-want +got):\n%s", diff)
	}
	want := strings.TrimSpace(inNetns(t, n.Host.Netns, "readlink", "/proc/self/ns/net"))
	for _, c := range got {
		if c.Netns != want {
			t.Errorf("%s ran in network namespace %s, want the host's, %s", c.Command, c.Netns, want)
		}
		if !c.FoundItself {
			t.Errorf("at %s /proc did not show the plugin's own process", c.Command)
		}
	}
}

// The plugins of the CNI project find the host's network namespace by their
// process ID, which is one thing in the pod and another on the host.
func TestRealPluginFromWithinAPod(t *testing.T) {
	n := newNode(t, realPlugins(t))
	answer := inPod(t, n, list(t, "net", ptp("10.9.0.0/24", t.TempDir())), newCall(newNetns(t)))
	if answer.Add != "<nil>" || answer.Del != "<nil>" {
		t.Fatalf("unexpected errors: add: %s; delete: %s", answer.Add, answer.Del)
	}
	if answer.Result.Interface != "net1" || len(answer.Result.Addresses) != 1 {
		t.Errorf("want interface net1 with an address, got %+v", answer.Result)
	}
}

func TestPluginEndsWithThisProcess(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake"))
	pipe := newPipe(t)
	process := newPod(t, "/", n, list(t, "net", fakeConfig{Type: "fake", HangOn: "ADD", Hanging: pipe}), newCall(newNetns(t)))
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	pids, err := os.ReadFile(pipe)
	if err != nil {
		t.Fatal(err)
	}
	plugin, child, _ := strings.Cut(string(pids), " ")
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err == nil {
		t.Error("the process was not killed")
	}
	await(t, "the end of the plugin, process "+plugin, func() bool { return gone(t, plugin) })
	// In a pod the process namespace ends, and the plugin's children with it.
	// Here they are the test's to end.
	pid, err := strconv.Atoi(child)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}
