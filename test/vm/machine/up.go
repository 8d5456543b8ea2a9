package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/agent"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/cache"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/image"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/packages"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/qemu"
)

// initPackage is the guest's first process.
const initPackage = "github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/guest"

// bootPatience is how long a boot may take; an emulated one on a busy machine
// takes 30 seconds.
const bootPatience = 2 * time.Minute

// bootAttempts is how often a guest is booted that does not come up: now and then an
// emulated processor never gets its first timer's interrupt, and the guest's kernel
// complains of stalls for ever.
const bootAttempts = 3

// Options say what guest is wanted.
type Options struct {
	// Name is the guest's; several can run beside each other.
	Name string
	// Out gets lines about what is being done.
	Out io.Writer
	// MemoryMiB is the guest's memory; 0 is 1024.
	MemoryMiB int
	// Lifetime is after how long the guest turns itself off; 0 is an hour.
	Lifetime time.Duration
	// Programs, if any, are put on a disk that becomes the guest's root, by their
	// paths in the guest: what containers need, and what is too big for memory.
	Programs map[string]string
	// Modules are further kernel modules to load.
	Modules []string
	// Network is the path of the network namespace that QEMU runs in. The guest
	// reaches what can be reached from there, and is itself reached there, at
	// Address. Empty keeps the guest to itself.
	Network string
	// Ports of the guest can be connected to in Network.
	Ports []int
}

// Address is the guest's on the link to the machine outside.
const Address = boot.GuestAddr

// Build brings everything that a guest needs into the cache.
func Build(ctx context.Context, o Options) error {
	_, err := prepare(ctx, o)
	return err
}

// parts are the cached parts of a guest.
type parts struct {
	dir  string
	tree packages.Tree
	base image.Base
	disk string
}

func prepare(ctx context.Context, o Options) (p parts, err error) {
	if p.dir, err = cache.Dir(); err != nil {
		return p, err
	}
	if p.tree, err = packages.Ensure(ctx, p.dir, o.Out); err != nil {
		return p, err
	}
	if p.base, err = image.Ensure(ctx, p.dir, p.tree); err != nil {
		return p, err
	}
	if len(o.Programs) > 0 {
		p.disk, err = p.base.EnsureDisk(ctx, p.dir, p.tree, o.Programs)
	}
	return p, err
}

// Up starts a guest and waits until it takes orders. One of that name must not
// run.
func Up(ctx context.Context, o Options) (m *Machine, err error) {
	if o.Out == nil {
		o.Out = io.Discard
	}
	dir, err := folder(o.Name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the guests: %w", err)
	}
	unlock, err := cache.Lock(dir + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := Find(o.Name); !errors.Is(err, ErrNotRunning) {
		return nil, errors.Join(fmt.Errorf("the guest %s runs already: take it down first, or choose another name", o.Name), err)
	}
	p, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove what an earlier guest left: %w", err)
	}
	m = &Machine{dir: dir, state: state{Network: o.Network}}
	m.Dial = m.dial
	if err := os.MkdirAll(m.Share(), 0o755); err != nil {
		return nil, fmt.Errorf("make the guest's folder: %w", err)
	}
	start := time.Now()
	if err := m.start(ctx, o, p); err != nil {
		return nil, err
	}
	// QEMU has them in its memory, also for a reboot.
	for _, file := range []string{m.initPath(), m.initramfsPath()} {
		if err := os.Remove(file); err != nil {
			return nil, errors.Join(fmt.Errorf("remove what the guest was booted from: %w", err), m.end(0))
		}
	}
	fmt.Fprintf(o.Out, "The guest %s (%s) takes orders after %.1fs\n", o.Name, m.state.Accelerator, time.Since(start).Seconds())
	return m, nil
}

// start boots the guest.
func (m *Machine) start(ctx context.Context, o Options, p parts) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", m.initPath(), initPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest's init (in a clone of the repository?): %w: %s", err, output)
	}
	if err := p.base.AppendInit(m.initramfsPath(), m.initPath()); err != nil {
		return err
	}
	var err error
	if m.Agent, err = agentAddress(o); err != nil {
		return err
	}
	config := describe(o, p, m)
	if m.state.Accelerator, err = qemu.Accelerator(ctx, p.dir, p.tree, config); err != nil {
		return err
	}
	if o.Network != "" {
		if err := takeAddress(o.Network); err != nil {
			return err
		}
	}
	for left := bootAttempts; ; left-- {
		ended, err := m.launch(ctx, p.tree, config)
		if err != nil {
			return err
		}
		err = m.awaitAgent(ctx, ended, 1)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("the guest does not come up: %w\n%s\nIts console ends with:\n%s", err, m.qemuLog(), m.Console())
		if endErr := m.end(0); left == 1 || ctx.Err() != nil || endErr != nil || !errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(err, endErr)
		}
		fmt.Fprintf(o.Out, "Once more: %v\n", err)
	}
}

// describe puts the machine together.
func describe(o Options, p parts, m *Machine) qemu.Machine {
	lifetime, memory := o.Lifetime, o.MemoryMiB
	if lifetime == 0 {
		lifetime = time.Hour
	}
	if memory == 0 {
		memory = 1024
	}
	modules := append([]string{"virtio_net", "9p", "9pnet_virtio", "igb", "igbvf"}, o.Modules...)
	config := qemu.Machine{
		Kernel: p.base.Kernel, Initramfs: m.initramfsPath(), Disk: p.disk, Share: m.Share(), Console: m.consolePath(),
		CPUs: 2, MemoryMiB: memory, Isolated: o.Network == "",
		Forwards: []qemu.Forward{{Listen: m.Agent, Port: agent.Port}},
		Settings: map[string]string{
			boot.EnvLifetime: fmt.Sprintf("%.0f", lifetime.Seconds()),
			boot.EnvModules:  strings.Join(modules, ","),
		},
	}
	if p.disk != "" {
		config.Settings[boot.EnvDisk] = "/dev/vda"
	}
	for _, port := range o.Ports {
		config.Forwards = append(config.Forwards, qemu.Forward{Listen: net.JoinHostPort(listenHost(o), fmt.Sprint(port)), Port: port})
	}
	return config
}

// listenHost is where the guest's ports are reached from outside: in a network
// namespace of somebody's own, at the guest's own address.
func listenHost(o Options) string {
	if o.Network == "" {
		return "127.0.0.1"
	}
	return boot.GuestAddr
}

func agentAddress(o Options) (string, error) {
	if o.Network == "" {
		return freePort()
	}
	return net.JoinHostPort(listenHost(o), fmt.Sprint(agent.Port)), nil
}

// launch starts QEMU. The channel is closed when it ends.
func (m *Machine) launch(ctx context.Context, tree packages.Tree, config qemu.Machine) (<-chan struct{}, error) {
	log, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("make QEMU's log: %w", err)
	}
	cmd := qemu.Command(context.WithoutCancel(ctx), tree, m.state.Accelerator, config)
	cmd.Stdout, cmd.Stderr = log, log
	// What the guest writes to its disk goes to a file here.
	cmd.Env = append(cmd.Env, "TMPDIR="+m.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = inNetwork(m.Network, cmd.Start)
	if closeErr := log.Close(); err != nil || closeErr != nil {
		return nil, errors.Join(fmt.Errorf("start QEMU: %w", err), closeErr)
	}
	m.PID = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		// How it ended is in its log.
		_ = cmd.Wait()
		close(ended)
	}()
	content, err := json.MarshalIndent(m.state, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "machine.json"), content, 0o644)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep the state of the guest: %w", err), cmd.Process.Kill())
	}
	return ended, nil
}

// awaitAgent waits until the guest takes orders after the given number of boots.
func (m *Machine) awaitAgent(ctx context.Context, ended <-chan struct{}, boots int) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		// QEMU itself takes connections before the guest does.
		if m.boots() >= boots {
			return m.Run(ctx, Command{Args: []string{"true"}}, io.Discard, io.Discard)
		}
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("QEMU ended")
		case <-ctx.Done():
			return fmt.Errorf("it takes no orders: %w", ctx.Err())
		}
	}
}

// boots says how often the guest came up so far.
func (m *Machine) boots() int {
	said, err := os.ReadFile(m.consolePath())
	if err != nil {
		return 0
	}
	return strings.Count(string(said), boot.MarkReady)
}

// Reboot makes the guest go through what a cut of its power does: all that runs
// ends at once, and the guest boots again, with its disk as it was. It returns
// when the guest takes orders.
func (m *Machine) Reboot(ctx context.Context) error {
	before := m.boots()
	if err := m.Crash(ctx); err != nil {
		return err
	}
	if err := m.awaitAgent(ctx, nil, before+1); err != nil {
		return fmt.Errorf("the guest does not come back: %w\nIts console ends with:\n%s", err, m.Console())
	}
	return nil
}

func (m *Machine) qemuLog() string {
	content, err := os.ReadFile(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}
