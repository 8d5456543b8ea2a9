package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a command may take to end itself once its context is
// done.
const stopGrace = 20 * time.Second

// command is a program to run to its end. Show, if not nil, gets what it prints
// while it runs, and Out, if not nil, what of that is no error.
type command struct {
	Dir  string
	Path string
	Args []string
	Env  []string
	Show io.Writer
	Out  io.Writer
}

// run returns what the program printed to its standard output. The error ends
// with what it printed to its standard error.
func (c command) run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Dir = c.Dir
	if len(c.Env) > 0 {
		cmd.Env = append(cmd.Environ(), c.Env...)
	}
	// In a process group of its own the program is not interrupted by Ctrl-C:
	// whether it has to stop, or may finish cleaning up, is decided here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.Show != nil {
		show := &lockedWriter{out: c.Show}
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, show), io.MultiWriter(&stderr, show)
	}
	if c.Out != nil {
		cmd.Stdout = io.MultiWriter(cmd.Stdout, c.Out)
	}
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w%s", c, err, tail(stderr.String()))
	}
	return stdout.String(), nil
}

// String is the command line, for people.
func (c command) String() string {
	return strings.Join(append([]string{c.Path}, c.Args...), " ")
}

// lockedWriter lets both outputs of a program go to one writer.
type lockedWriter struct {
	mu  sync.Mutex
	out io.Writer
}

// Write implements [io.Writer].
func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// tail is the end of what a program said, on lines of its own.
func tail(text string) string {
	const most = 2000
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	if len(text) > most {
		text = "..." + text[len(text)-most:]
	}
	return "\n" + text
}
