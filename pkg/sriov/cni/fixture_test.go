package cni

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// This test binary is also what the tests run: CNI plugins that do what their
// configuration says, and the process in a pod that runs CNI plugins on its
// host.
func TestMain(m *testing.M) {
	// syscall.Exit: os.Exit waits for a second in programs built with -race.
	switch {
	case os.Getenv("CNI_COMMAND") != "":
		syscall.Exit(actAsPlugin())
	case os.Getenv("ACT_AS_POD") != "":
		syscall.Exit(actAsPod())
	case os.Getenv("ACT_AS_CHILD") != "":
		select {}
	}
	m.Run()
}

// fakeConfig is the configuration of a plugin of the tests.
type fakeConfig struct {
	Type string `json:"type"`
	// Log is a file to which the plugin adds what it was called with.
	Log string `json:"log,omitempty"`
	// FailOn is a command that fails, with Message and a line on stderr.
	FailOn  string `json:"failOn,omitempty"`
	Message string `json:"message,omitempty"`
	Stderr  string `json:"stderr,omitempty"`
	// HangOn is a command that never ends and has a child that does neither;
	// their process IDs are written to the pipe Hanging.
	HangOn  string `json:"hangOn,omitempty"`
	Hanging string `json:"hanging,omitempty"`
	// Result is what ADD answers.
	Result json.RawMessage `json:"result,omitempty"`
}

// fakeCall is what a plugin of the tests was called with.
type fakeCall struct {
	Plugin  string
	Command string
	Env     map[string]string
	Config  map[string]json.RawMessage
	// Netns is the network namespace in which the plugin ran, as text of its
	// link in /proc.
	Netns string
	// FoundItself tells whether its own process ID led to itself in /proc.
	FoundItself bool
}

func actAsPlugin() int {
	raw, err := io.ReadAll(os.Stdin)
	var config fakeConfig
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	call := fakeCall{Plugin: filepath.Base(os.Args[0]), Command: os.Getenv("CNI_COMMAND"), Env: map[string]string{}}
	if err == nil {
		err = json.Unmarshal(raw, &call.Config)
	}
	if err == nil && config.Log != "" {
		err = call.log(config.Log)
	}
	if err == nil && config.HangOn == call.Command {
		err = hang(config.Hanging)
	}
	if err == nil && config.FailOn == call.Command {
		fmt.Fprintln(os.Stderr, config.Stderr)
		if config.Message == "" {
			return 3
		}
		err = errors.New(config.Message)
	}
	if err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":100,"msg":%q}`, err)
		return 1
	}
	if call.Command == "ADD" {
		fmt.Printf("%s", config.Result)
	}
	return 0
}

func (c *fakeCall) log(path string) error {
	for _, kv := range os.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		c.Env[key] = value
	}
	var err error
	if c.Netns, err = os.Readlink("/proc/self/ns/net"); err != nil {
		return err
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getpid()))
	c.FoundItself = err == nil && strings.Contains(string(comm), "CNI_COMMAND="+c.Command)
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	return f.Close()
}

func hang(pipe string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self)
	child.Env = []string{"ACT_AS_CHILD=true"}
	child.Stdout = os.Stdout
	if err := child.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(pipe, fmt.Appendf(nil, "%d %d", os.Getpid(), child.Process.Pid), 0); err != nil {
		return err
	}
	return child.Wait()
}

// newPipe returns the path of a pipe for [fakeConfig.Hanging].
func newPipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// calls returns what the plugins with a log were called with.
func calls(t *testing.T, log string) []fakeCall {
	t.Helper()
	f, err := os.Open(log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	var all []fakeCall
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var c fakeCall
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// said returns "plugin COMMAND" for each call.
func said(all []fakeCall) []string {
	var s []string
	for _, c := range all {
		s = append(s, c.Plugin+" "+c.Command)
	}
	return s
}

// fakePlugins returns a folder with plugins of the tests.
func fakePlugins(t *testing.T, names ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// realPlugins returns the folder with the CNI plugins of the test cluster.
func realPlugins(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("EKS_HYBRID_DRA_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("no cache folder: %v", err)
		}
		cache = filepath.Join(user, "eks-hybrid-dra")
	}
	found, err := filepath.Glob(filepath.Join(cache, "parts", "cni-*", "tuning"))
	if err != nil {
		t.Fatal(err)
	}
	// Which of several it is does not matter to these tests.
	if len(found) == 0 {
		t.Skip("the CNI plugins of the test cluster are not built: run `make cluster` first")
	}
	return filepath.Dir(found[len(found)-1])
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make namespaces")
	}
}

// newNetns makes a network namespace and returns a path that it is bound to.
func newNetns(t *testing.T) string {
	t.Helper()
	needRoot(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var host Host
	err := host.onThread(
		func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") },
	)
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { closeNetns(t, path) })
	return path
}

// closeNetns takes a network namespace off its path. Repeating it is fine.
func closeNetns(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("close network namespace %s: %v", path, err)
	}
}

// inNetns runs a program of the machine in a network namespace.
func inNetns(t *testing.T, netns string, args ...string) string {
	t.Helper()
	host := Host{Root: "/", Netns: netns}
	var out []byte
	err := host.run(func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// node is a host for tests, with a network namespace of its own.
type node struct {
	Options
	Networks *Networks
	Log      string
}

func newNode(t *testing.T, bin string) *node {
	t.Helper()
	n := &node{Log: filepath.Join(t.TempDir(), "log")}
	n.Options = Options{Host: Host{Root: "/", Netns: newNetns(t)}, BinDirs: []string{bin}, ConfDir: t.TempDir(), CacheDir: t.TempDir()}
	n.Networks = New(n.Options)
	return n
}

func newCall(netns string) Call {
	return Call{
		ContainerID: "sandbox1", NetnsPath: netns, IfName: "net1", DeviceID: "0000:18:00.1",
		Pod: device.Pod{Namespace: "team", Name: "trainer", UID: "11111111-2222-3333-4444-555555555555"},
	}
}

// list returns the configuration of a list of plugins.
func list(t *testing.T, name string, plugins ...any) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": name, "plugins": plugins})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// gone tells whether a process has ended, whether or not anybody asked how.
func gone(t *testing.T, pid string) bool {
	t.Helper()
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// await waits for a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for timeout := time.After(10 * time.Second); !holds(); {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("waited 10 s in vain for %s", what)
		}
	}
}
