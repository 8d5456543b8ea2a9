package faults

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// patience is how long a test waits for what should happen soon.
const patience = 30 * time.Second

// plugin is one process of the plugin.
type plugin struct {
	t      *testing.T
	node   *node
	podUID string
	// once is the folder with a file for each fault that has not happened yet.
	once string
	// http is the address of the health endpoints.
	http string
	log  *logBuffer

	cmd *exec.Cmd
	// done is closed when the process has ended, as waitErr tells.
	done    chan struct{}
	waitErr error

	kubelet *draclient.Plugin
}

type option func(*plugin)

// fault is what an instance does at a step: "kill" or "error", once, after it
// has passed the step so many times.
type fault struct {
	step   faultpoint.Step
	how    string
	passes int
}

func (f fault) String() string { return string(f.step) + "=" + f.how }

// text is what the plugin says when it was made to fail.
func (f fault) text() string { return "faultpoint " + string(f.step) + ": injected error" }

// with makes the instance fail once at each of the steps.
func with(faults ...fault) option {
	return func(p *plugin) {
		dir, err := os.MkdirTemp(bed.scratch, "once")
		if err != nil {
			p.t.Fatal(err)
		}
		p.once = dir
		var all []string
		for _, f := range faults {
			p.node.write(filepath.Join(dir, string(f.step)), strconv.Itoa(f.passes))
			all = append(all, f.String())
		}
		p.cmd.Env = append(p.cmd.Environ(), "FAULTPOINT="+strings.Join(all, ","), "FAULTPOINT_ONCE="+dir)
	}
}

// as gives the instance a pod.
func as(podUID string) option { return func(p *plugin) { p.podUID = podUID } }

// serving gives the instance a known address for its health endpoints.
func serving() option {
	return func(p *plugin) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		p.http = listener.Addr().String()
		if err := listener.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// launch starts an instance and does not wait for anything.
func (n *node) launch(options ...option) *plugin {
	n.t.Helper()
	p := &plugin{t: n.t, node: n, http: "127.0.0.1:0", log: &logBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(bed.program)
	for _, o := range options {
		o(p)
	}
	p.cmd.Args = append(p.cmd.Args, "--node-name="+n.name, "--pod-uid="+p.podUID, "--kubeconfig="+n.kubeconfig, "--kubelet-root="+n.dir,
		"--cdi-root="+n.cdiDir(), "--host-root="+n.hostRoot, "--simulate=dgx-h200", "--http-address="+p.http)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	// Nothing of a test that dies must go on.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.plugins = append(n.plugins, p)
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// start starts an instance and registers it, as kubelet does.
func (n *node) start(options ...option) *plugin {
	n.t.Helper()
	p := n.launch(options...)
	p.register()
	return p
}

func (p *plugin) register() {
	p.t.Helper()
	eventually(p.t, "registered", func() error {
		if !p.running() {
			p.t.Fatalf("%s ended: %v", p, p.waitErr)
		}
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		defer cancel()
		var err error
		p.kubelet, err = draclient.Register(ctx, p.registrarSocket())
		return err
	})
}

func (p *plugin) socket() string {
	return filepath.Join(p.node.dataDir(), strings.TrimSuffix("dra-"+p.podUID, "-")+".sock")
}

func (p *plugin) registrarSocket() string {
	return filepath.Join(p.node.registrarDir(), strings.TrimSuffix(driverName+"-"+p.podUID, "-")+"-reg.sock")
}

// attachSocket is that of an instance with devices that are attached.
func (p *plugin) attachSocket() string {
	return filepath.Join(p.node.dataDir(), "attach", cmp.Or(p.podUID, "plugin")+".sock")
}

func (p *plugin) String() string {
	return fmt.Sprintf("plugin %d on %s (pod %q)", slices.Index(p.node.plugins, p)+1, p.node.name, p.podUID)
}

func (p *plugin) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait waits for the end of the process.
func (p *plugin) wait() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p)
	}
	p.disconnect()
}

func (p *plugin) disconnect() {
	if p.kubelet == nil {
		return
	}
	if err := p.kubelet.Close(); err != nil {
		p.t.Error(err)
	}
	p.kubelet = nil
}

// kill ends the process as kill -9 does.
func (p *plugin) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

// stop ends the process as kubelet ends a pod.
func (p *plugin) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
	if p.waitErr != nil {
		p.t.Fatalf("%s did not stop well: %v", p, p.waitErr)
	}
}

// end makes sure that the process is gone, at the end of a test.
func (p *plugin) end() {
	if p.running() {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.t.Error(err)
		}
	}
	<-p.done
	p.disconnect()
}

// mustHaveBeenKilled waits for the end that a fault brought.
func (p *plugin) mustHaveBeenKilled() {
	p.t.Helper()
	p.wait()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s was to be killed by the fault, and ended with %v", p, p.waitErr)
	}
}

// mustRefuse waits for an end with an error that says everything in want.
func (p *plugin) mustRefuse(want ...string) {
	p.t.Helper()
	p.wait()
	if p.waitErr == nil {
		p.t.Fatalf("%s ended without an error", p)
	}
	mustSay(p.t, errors.New(p.log.String()), want...)
}

// mustHaveFailed checks that the faults did happen.
func (p *plugin) mustHaveFailed() {
	p.t.Helper()
	entries, err := os.ReadDir(p.once)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, entry := range entries {
		p.t.Fatalf("step %s was never reached", entry.Name())
	}
}

// waitLog waits until the plugin has said something.
func (p *plugin) waitLog(want string) {
	p.t.Helper()
	eventually(p.t, "said "+want, func() error {
		if !strings.Contains(p.log.String(), want) {
			return errors.New("not in the log")
		}
		return nil
	})
}

// mustSay fails the test if the error is nil or leaves out anything of want.
func mustSay(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("never %s: %v", what, last)
	}
}

// logBuffer is what a process printed so far.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *logBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// logged returns what the plugin has said so far, as an error to look into.
func logged(p *plugin) error { return errors.New(p.log.String()) }
