package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// answerPatience bounds how long the guest stays on for a client to read that it
// will turn off.
const answerPatience = 5 * time.Second

// Server obeys orders in the guest.
type Server struct {
	// Logs is the folder of the services' logs.
	Logs string
	// PowerOff turns the guest off, and Crash reboots it at once.
	PowerOff, Crash func() error

	mu       sync.Mutex
	services map[string]*service
}

type service struct {
	cmd *exec.Cmd
	// ended is closed when the program has ended.
	ended chan struct{}
}

// Serve takes connections until the listener is closed or the context ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("take a connection: %w", err)
		}
		go s.handle(ctx, conn)
	}
}

func (s *Server) handle(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The client that is gone cannot be told.
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return
	}
	go func() {
		// A client sends nothing more: what comes is the end of the connection.
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	out := &frames{conn: conn}
	var r request
	answer := result{}
	if err := json.Unmarshal(line, &r); err != nil {
		answer.Error = "not an order: " + err.Error()
	} else {
		answer = s.obey(ctx, r, out)
	}
	if payload, err := json.Marshal(answer); err == nil {
		_ = out.write(frameResult, payload)
	}
	last := map[string]func() error{opPowerOff: s.PowerOff, opCrash: s.Crash}[r.Op]
	if last != nil {
		// A client that has its answer closes the connection.
		select {
		case <-ctx.Done():
		case <-time.After(answerPatience):
		}
		_ = last()
	}
}

func (s *Server) obey(ctx context.Context, r request, out *frames) result {
	var err error
	switch r.Op {
	case opRun:
		return run(ctx, r.Command, out)
	case opStart:
		err = s.start(r)
	case opStop:
		err = s.stop(ctx, r)
	case opPowerOff, opCrash:
	default:
		err = fmt.Errorf("unknown order %q", r.Op)
	}
	if err != nil {
		return result{Error: err.Error()}
	}
	return result{}
}

// command prepares a program in a process group of its own.
func command(c Command) (*exec.Cmd, error) {
	if len(c.Args) == 0 {
		return nil, errors.New("no program is named")
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), c.Env...), c.Dir
	if c.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func run(ctx context.Context, c Command, out *frames) result {
	cmd, err := command(c)
	if err != nil {
		return result{Error: err.Error()}
	}
	cmd.Stdout, cmd.Stderr = stream{out, frameOut}, stream{out, frameErr}
	if err := cmd.Start(); err != nil {
		return result{Error: err.Error()}
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{Error: err.Error()}
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return result{Code: 128 + int(status.Signal())}
	}
	return result{Code: cmd.ProcessState.ExitCode()}
}

func (s *Server) start(r request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.services[r.Name]; old != nil {
		select {
		case <-old.ended:
		default:
			return fmt.Errorf("the service %s runs already", r.Name)
		}
	}
	cmd, err := command(r.Command)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Logs, r.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the service's log: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	if closeErr := log.Close(); err != nil || closeErr != nil {
		return errors.Join(err, closeErr)
	}
	started := &service{cmd: cmd, ended: make(chan struct{})}
	go func() {
		// How it ended is in its log.
		_ = cmd.Wait()
		close(started.ended)
	}()
	if s.services == nil {
		s.services = map[string]*service{}
	}
	s.services[r.Name] = started
	return nil
}

func (s *Server) stop(ctx context.Context, r request) error {
	s.mu.Lock()
	running := s.services[r.Name]
	s.mu.Unlock()
	if running == nil {
		return fmt.Errorf("no service %s was started", r.Name)
	}
	signal := syscall.Signal(r.Signal)
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	// Only the service itself: what it started may have to live on, such as
	// containerd's shims.
	if err := running.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-running.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the service %s does not end: %w", r.Name, ctx.Err())
	}
}

// frames lets several writers use one connection.
type frames struct {
	mu   sync.Mutex
	conn net.Conn
}

func (f *frames) write(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return writeFrame(f.conn, kind, payload)
}

// stream is one of a program's outputs.
type stream struct {
	out  *frames
	kind byte
}

// Write implements [io.Writer].
func (s stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxFrame)
		if err := s.out.write(s.kind, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}
