package namespace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

// InitCommand is the hidden command that the program calls itself with.
const InitCommand = "namespace-init"

// goFD is the descriptor on which the init process waits for leave to go on.
const goFD = 3

const cloneFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Init is a role's init process, as seen from outside.
type Init struct {
	// PID is the process id in the caller's PID namespace.
	PID int
}

// Spawn starts the init process of a role in new namespaces. It waits there
// until release is called; if the caller dies before, it ends.
func Spawn(s config.State, role config.Role) (init Init, release func() error, err error) {
	log, err := os.OpenFile(filepath.Join(s.Logs(), "init-"+string(role)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Init{}, nil, fmt.Errorf("open the log of the init process: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	wait, leave, err := os.Pipe()
	if err != nil {
		return Init{}, nil, fmt.Errorf("make a pipe to the init process: %w", err)
	}
	defer func() { err = errors.Join(err, wait.Close()) }()
	cmd := exec.Command("/proc/self/exe", InitCommand, s.Dir, string(role))
	cmd.Args[0] = "cluster"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{wait}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: cloneFlags, Setsid: true}
	if err := cmd.Start(); err != nil {
		return Init{}, nil, errors.Join(fmt.Errorf("start the init process of the %s in new namespaces: %w", role, err), leave.Close())
	}
	// Collects it if it ends while this process lives.
	go func() { _ = cmd.Wait() }()
	release = func() error {
		_, err := leave.Write([]byte{1})
		if err := errors.Join(err, leave.Close()); err != nil {
			return fmt.Errorf("let the init process of the %s go on: %w", role, err)
		}
		return nil
	}
	return Init{PID: cmd.Process.Pid}, release, nil
}

// Find returns the living init process of a role. It looks at all processes
// instead of a file, so that it is right after any crash.
func Find(s config.State, role config.Role) (Init, bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Init{}, false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && isInit(pid, s, role) {
			return Init{PID: pid}, true
		}
	}
	return Init{}, false
}

func isInit(pid int, s config.State, role config.Role) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
	return len(args) == 4 && string(args[1]) == InitCommand && string(args[2]) == s.Dir && string(args[3]) == string(role)
}

// Kill ends the init process of a role and waits until it, and so everything in
// its PID namespace, is gone. No process is fine.
func Kill(ctx context.Context, s config.State, role config.Role) error {
	for {
		init, ok := Find(s, role)
		if !ok {
			return nil
		}
		if err := kill(ctx, s, role, init.PID); err != nil {
			return fmt.Errorf("end the %s (pid %d): %w", role, init.PID, err)
		}
	}
}

func kill(ctx context.Context, s config.State, role config.Role, pid int) (err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the process: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	// From here the descriptor pins the process; is it still the right one?
	if !isInit(pid, s, role) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the process: %w", err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		polled, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if polled > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the end of the process: %w", err)
		}
	}
	return errors.Join(errors.New("the process is killed, but its namespace does not end (a process in it hangs in the kernel?)"), ctx.Err())
}
