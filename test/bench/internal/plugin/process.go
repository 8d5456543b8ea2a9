package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a plugin may take to end itself.
const stopGrace = 20 * time.Second

// Process is a running plugin.
type Process struct {
	// Started is the moment before the process was made.
	Started time.Time

	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	err   error
}

// Start starts the plugin. What it logs goes to the named file; ctx does not
// end it, [Process.Stop] does.
func (k Kind) Start(ctx context.Context, place Place, log string) (*Process, error) {
	for _, dir := range []string{place.RegistrarDir(), filepath.Join(place.KubeletRoot, "plugins"), place.CDIRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the folders of %s: %w", k.Title, err)
		}
	}
	return run(ctx, k.Title, log, k.program, k.args(place)...)
}

// Controller starts our controller as the image has it, unpacked into dir. What
// it logs goes to the named file; ctx does not end it, [Process.Stop] does.
func Controller(ctx context.Context, image, dir, log string, args ...string) (*Process, error) {
	if err := unpack(image, dir); err != nil {
		return nil, fmt.Errorf("take our programs out of the image %s: %w", image, err)
	}
	return run(ctx, "our controller", log, filepath.Join(dir, "controller"), args...)
}

func run(ctx context.Context, title, log, program string, args ...string) (_ *Process, err error) {
	file, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", title, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }() // the process has its own
	p := &Process{log: log, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	// A key press meant for the benchmark must not end it too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", title, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Failure says how a process ended that should still run, with the end of what
// it logged.
func (p *Process) Failure() error {
	text, err := os.ReadFile(p.log)
	const most = 2000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return errors.Join(fmt.Errorf("%s ended: %w; its log ends with:\n%s", p.cmd.Path, p.err, text), err)
}

// Stop ends the process as Kubernetes does and waits for its end. One that has
// ended before by itself is an error.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return p.Failure()
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.cmd.Path, err)
	}
	<-p.ended
	return fmt.Errorf("%s did not stop within %s and was killed", p.cmd.Path, stopGrace)
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// RSS returns how much memory the process has in RAM, in bytes.
func (p *Process) RSS() (int64, error) { return p.memory("VmRSS") }

// PeakRSS returns how much memory the process has had in RAM at most, in bytes.
func (p *Process) PeakRSS() (int64, error) { return p.memory("VmHWM") }

func (p *Process) memory(field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("look at the memory of %s: %w", p.cmd.Path, err)
	}
	for line := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(line, field+":")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("look at the memory of %s: %w", p.cmd.Path, err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("look at the memory of %s: /proc/%d/status has no %s", p.cmd.Path, p.PID(), field)
}
