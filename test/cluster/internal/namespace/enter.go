package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs a command inside the namespaces of an init process and waits for its
// end. The command's files are those given in cmd.
func (i Init) Run(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	go func() {
		// This thread's namespaces are changed for good: it is never unlocked,
		// so that it ends with this goroutine.
		runtime.LockOSThread()
		result <- i.run(cmd)
	}()
	return <-result
}

func (i Init) run(cmd *exec.Cmd) (err error) {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return fmt.Errorf("open the init process (pid %d): %w", i.PID, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	// The kernel lets a thread into another mount namespace only when it shares
	// its root and working directory with no other thread.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("separate this thread's file system view: %w", err)
	}
	if err := unix.Setns(fd, cloneFlags); err != nil {
		return fmt.Errorf("enter the namespaces of pid %d: %w", i.PID, err)
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	return cmd.Run()
}

// OpenNetwork opens the init process' network namespace.
func (i Init) OpenNetwork() (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", i.PID))
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of pid %d: %w", i.PID, err)
	}
	return f, nil
}
