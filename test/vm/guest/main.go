package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/agent"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
)

func main() {
	for name, value := range map[string]string{"PATH": "/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", "TERM": "dumb"} {
		if err := os.Setenv(name, value); err != nil {
			say("%v", err)
		}
	}
	if os.Getpid() != 1 {
		if err := serve(context.Background()); err != nil {
			say("the agent failed: %v", err)
			os.Exit(1)
		}
		return
	}
	// An error here would be a kernel panic; the log has to say why instead.
	if err := first(); err != nil {
		say("init failed: %v", err)
	}
	if err := powerOff(); err != nil {
		say("cannot turn off: %v", err)
	}
}

// first is the life of the first process: it prepares the guest, starts the
// agent, and collects every process whose parent has gone.
func first() error {
	say("%s", boot.MarkInit)
	if err := prepare(); err != nil {
		return err
	}
	if os.Getenv(boot.EnvProbe) != "" {
		return nil
	}
	lifetime, err := strconv.Atoi(os.Getenv(boot.EnvLifetime))
	if err != nil {
		return fmt.Errorf("%s: %w", boot.EnvLifetime, err)
	}
	// Nobody may be left outside who would end a forgotten guest.
	time.AfterFunc(time.Duration(lifetime)*time.Second, func() {
		say("the guest's time of %d s is over", lifetime)
		_ = powerOff()
	})
	child := exec.Command(initPath)
	child.Dir = "/"
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	return reap(child.Process.Pid)
}

// reap collects ended processes until the given one ends.
func reap(agent int) error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid == agent:
			return fmt.Errorf("the agent ended: exit status %d, signal %d", status.ExitStatus(), status.Signal())
		}
	}
}

// serve is the life of the agent.
func serve(ctx context.Context) error {
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", agent.Port))
	if err != nil {
		return fmt.Errorf("listen for orders: %w", err)
	}
	say("%s", boot.MarkReady)
	server := &agent.Server{Logs: "/var/log", PowerOff: powerOff, Crash: crash}
	return server.Serve(ctx, listener)
}

func powerOff() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// crash reboots at once; no process is told. What was written before is on the
// disk, as it is on a machine that has run for more than some seconds: programs
// that lie there would be empty otherwise.
func crash() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("1"), 0); err != nil {
		return fmt.Errorf("allow a reboot at once: %w", err)
	}
	return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)
}

// say writes to the console.
func say(format string, args ...any) {
	fmt.Printf("[guest] "+format+"\n", args...)
}

// run runs a program of the guest.
func run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, output)
	}
	return nil
}
