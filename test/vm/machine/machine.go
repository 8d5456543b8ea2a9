package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/agent"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
)

// Command is a program to run in the guest.
type Command = agent.Command

// ExitError says that a program in the guest ended with another status than 0.
type ExitError = agent.ExitError

// ErrNotRunning says that there is no such guest.
var ErrNotRunning = errors.New("the guest does not run")

// Machine is a running guest. Its Run, Output, Start and Stop order programs in
// the guest about.
type Machine struct {
	agent.Client
	state
	dir string
}

// state is what other programs need to find the guest.
type state struct {
	// PID is QEMU's.
	PID int `json:"pid"`
	// Agent is where the guest's agent is reached, in Network.
	Agent string `json:"agent"`
	// Network is the path of the network namespace that QEMU runs in; empty is
	// the machine's.
	Network string `json:"network,omitempty"`
	// Accelerator is how QEMU runs the guest.
	Accelerator string `json:"accelerator"`
}

// folder returns the folder of a guest.
func folder(name string) (string, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("the guest's name %q cannot be that of a folder", name)
	}
	dir, err := cache.Dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "machines", name), nil
}

// Find returns the running guest of a name, or [ErrNotRunning].
func Find(name string) (*Machine, error) {
	dir, err := folder(name)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("look for the guest %s: %w", name, err)
	}
	m := &Machine{dir: dir}
	if err := json.Unmarshal(content, &m.state); err != nil {
		return nil, fmt.Errorf("read the state of the guest %s: %w", name, err)
	}
	m.Dial = m.dial
	if !m.alive() {
		return nil, fmt.Errorf("%s: %w", name, ErrNotRunning)
	}
	return m, nil
}

// Share is the folder here that the guest sees as /host.
func (m *Machine) Share() string { return filepath.Join(m.dir, "share") }

// Guest returns the path in the guest of a path below Share.
func (m *Machine) Guest(path string) string {
	return filepath.Join(boot.ShareDir, strings.TrimPrefix(path, m.Share()))
}

// Accelerator is how the guest is run: kvm, or tcg, which is much slower.
func (m *Machine) Accelerator() string { return m.state.Accelerator }

// Console returns the last lines of the guest's console.
func (m *Machine) Console() string {
	const most = 8 << 10
	content, err := os.ReadFile(m.consolePath())
	if err != nil {
		return "(no console: " + err.Error() + ")"
	}
	return string(content[max(0, len(content)-most):])
}

func (m *Machine) consolePath() string { return filepath.Join(m.dir, "console.log") }

func (m *Machine) initPath() string { return filepath.Join(m.dir, "init") }

func (m *Machine) initramfsPath() string { return filepath.Join(m.dir, "initramfs.cpio") }

// Down turns the guest off and removes its folder.
func (m *Machine) Down(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx)
	lock := m.dir + ".lock"
	unlock, err := cache.Lock(lock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// One that no longer answers is killed below.
	_ = m.PowerOff(ask)
	if err := m.end(10 * time.Second); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return fmt.Errorf("remove the guest's folder: %w", err)
	}
	if err := os.Remove(lock); err != nil {
		return fmt.Errorf("remove the guest's lock: %w", err)
	}
	return nil
}

// end waits for QEMU's end, and ends it when the grace is over.
func (m *Machine) end(grace time.Duration) (err error) {
	fd, err := unix.PidfdOpen(m.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open QEMU's process: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	// From here the descriptor pins the process; is it still the right one?
	if !m.alive() {
		return nil
	}
	for _, wait := range []time.Duration{grace, 10 * time.Second} {
		if ended(fd, wait) {
			return nil
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end QEMU (pid %d): %w", m.PID, err)
		}
	}
	return fmt.Errorf("QEMU (pid %d) does not end", m.PID)
}

// ended waits until the process is gone.
func ended(fd int, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for time.Now().Before(deadline) {
		polled, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())+1)
		if polled > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
	return false
}

// alive says whether the process is QEMU with this guest.
func (m *Machine) alive() bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.PID))
	return err == nil && strings.Contains(string(cmdline), "file:"+m.consolePath()+"\x00")
}

func (m *Machine) dial(ctx context.Context) (conn net.Conn, err error) {
	err = inNetwork(m.Network, func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", m.Agent)
		return err
	})
	return conn, err
}
