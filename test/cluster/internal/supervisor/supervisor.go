package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

// restartDelay is the pause before a command that ended by itself is started
// again.
const restartDelay = time.Second

// quick is how short a life is after which a command counts as one that cannot
// start. An API server waits for etcd for longer than that before it ends.
const quick = 5 * time.Second

// termGrace is how long a command may take to end after SIGTERM. An API server
// with open watches would take a minute.
const termGrace = 10 * time.Second

// Command is a program to supervise.
type Command struct {
	// Name is how orders refer to it, and the base name of its log file.
	Name string `json:"name"`
	// Path is the program. It is called by the base name of this path.
	Path string `json:"path"`
	// Args are its arguments, without the program's name.
	Args []string `json:"args"`
}

// Status is the state of one command.
type Status struct {
	Name string `json:"name"`
	// PID is the process id inside the PID namespace; 0 when it does not run.
	PID int `json:"pid"`
	// Wanted says whether the command is meant to run.
	Wanted bool `json:"wanted"`
	// Restarts counts how often it ended by itself and was started again.
	Restarts int `json:"restarts"`
	// QuickEnds counts how often in a row it ended by itself right after its
	// start.
	QuickEnds int `json:"quickEnds,omitempty"`
	// LastExit says how the last process ended.
	LastExit string `json:"lastExit,omitempty"`
}

// Supervisor runs commands. There is at most one in a process, since it reaps
// every child.
type Supervisor struct {
	logs string
	env  []string

	// mu also orders starting a process before reaping it.
	mu       sync.Mutex
	commands map[string]*process
}

type process struct {
	command Command
	Status
	started time.Time
	// exited is closed when the process that runs now has ended.
	exited chan struct{}
}

// New makes a supervisor of commands, none of which runs yet. Output goes to
// <logs>/<name>.log.
func New(commands []Command, logs string, env []string) *Supervisor {
	s := &Supervisor{logs: logs, env: env, commands: map[string]*process{}}
	for _, c := range commands {
		s.commands[c.Name] = &process{command: c, Status: Status{Name: c.Name}}
	}
	return s
}

// Reap collects ended processes until the context ends.
func (s *Supervisor) Reap(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	defer signal.Stop(signals)
	for {
		s.reapAll(ctx)
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Supervisor) reapAll(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, p := range s.commands {
			if p.PID == pid {
				s.ended(ctx, p, status)
			}
		}
	}
}

// ended is called with the lock held.
func (s *Supervisor) ended(ctx context.Context, p *process, status syscall.WaitStatus) {
	p.PID = 0
	p.LastExit = fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		p.LastExit = "signal: " + status.Signal().String()
	}
	close(p.exited)
	klog.FromContext(ctx).Info("Command ended", "command", p.Name, "how", p.LastExit, "wanted", p.Wanted)
	if !p.Wanted {
		return
	}
	p.Restarts++
	if p.QuickEnds++; time.Since(p.started) > quick {
		p.QuickEnds = 0
	}
	time.AfterFunc(restartDelay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.Wanted && p.PID == 0 && ctx.Err() == nil {
			if err := s.spawn(ctx, p); err != nil {
				klog.FromContext(ctx).Error(err, "Command could not be started again", "command", p.Name)
			}
		}
	})
}

// Start starts a command, unless it runs.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.find(name)
	if err != nil {
		return err
	}
	p.Wanted = true
	if p.PID != 0 {
		return nil
	}
	p.QuickEnds = 0
	return s.spawn(ctx, p)
}

// setFlags changes arguments with which a command is started.
func (s *Supervisor) setFlags(name string, flags []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.find(name)
	if err != nil {
		return err
	}
	for _, flag := range flags {
		prefix, _, _ := strings.Cut(flag, "=")
		p.command.Args = slices.DeleteFunc(slices.Clone(p.command.Args), func(have string) bool { return strings.HasPrefix(have, prefix+"=") })
		p.command.Args = append(p.command.Args, flag)
	}
	return nil
}

// spawn is called with the lock held.
func (s *Supervisor) spawn(ctx context.Context, p *process) error {
	log, err := os.OpenFile(filepath.Join(s.logs, p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	cmd := exec.Command(p.command.Path, p.command.Args...)
	cmd.Args[0] = filepath.Base(p.command.Path)
	cmd.Env = s.env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	startErr := cmd.Start()
	// The child has its own descriptor.
	if err := log.Close(); err != nil {
		klog.FromContext(ctx).Error(err, "Closing a log file failed", "command", p.Name)
	}
	if startErr != nil {
		return fmt.Errorf("start %s: %w", p.Name, startErr)
	}
	p.PID = cmd.Process.Pid
	p.started = time.Now()
	p.exited = make(chan struct{})
	klog.FromContext(ctx).Info("Command started", "command", p.Name, "pid", p.PID)
	// Reap waits for it, together with orphans.
	if err := cmd.Process.Release(); err != nil {
		return fmt.Errorf("let go of %s: %w", p.Name, err)
	}
	return nil
}

// Stop ends a command and waits until it is gone: with SIGTERM, and SIGKILL
// after a grace period, or with SIGKILL at once.
func (s *Supervisor) Stop(ctx context.Context, name string, kill bool) error {
	s.mu.Lock()
	p, err := s.find(name)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	p.Wanted = false
	pid, exited := p.PID, p.exited
	if pid != 0 {
		first := syscall.SIGTERM
		if kill {
			first = syscall.SIGKILL
		}
		err = syscall.Kill(pid, first)
	}
	s.mu.Unlock()
	if pid == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end %s (pid %d): %w", name, pid, err)
	}
	grace := time.NewTimer(termGrace)
	defer grace.Stop()
	for {
		select {
		case <-exited:
			return nil
		case <-grace.C:
			klog.FromContext(ctx).Info("Command does not end, killing it", "command", name, "after", termGrace)
			if err := s.killIf(p, pid); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %s: %w", name, ctx.Err())
		}
	}
}

// killIf kills a process unless it was reaped, after which its id may be
// another's.
func (s *Supervisor) killIf(p *process, pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.PID != pid {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s (pid %d): %w", p.Name, pid, err)
	}
	return nil
}

// Status returns the state of all commands, by name.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.commands))
	for _, p := range s.commands {
		all = append(all, p.Status)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (s *Supervisor) find(name string) (*process, error) {
	p, ok := s.commands[name]
	if !ok {
		return nil, fmt.Errorf("there is no component %q here", name)
	}
	return p, nil
}
