package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// RunInit is the life of a role's init process.
func RunInit(ctx context.Context, s config.State, role config.Role) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is for the program itself: it must be PID 1 of a new namespace", InitCommand)
	}
	if err := awaitRelease(); err != nil {
		return err
	}
	c, err := s.Load()
	if err != nil {
		return err
	}
	if err := setUp(c, s, role); err != nil {
		return fmt.Errorf("set up the namespaces of the %s: %w", role, err)
	}
	// Services need more descriptors than a login shell allows. Setting the
	// limit explicitly makes children inherit it.
	limit := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			klog.FromContext(ctx).Error(err, "The limit of open files stays as it is")
		}
	}
	listener, err := supervisor.Listen(s.Socket(role))
	if err != nil {
		return err
	}
	commands := config.Commands(c, s, role)
	super := supervisor.New(commands, s.Logs(), Environment(c))
	go super.Reap(ctx)
	klog.FromContext(ctx).Info("Ready for orders", "role", role, "commands", len(commands))
	return super.Serve(ctx, listener)
}

// awaitRelease blocks until the process that started this one says go on.
func awaitRelease() (err error) {
	pipe := os.NewFile(goFD, "release")
	if pipe == nil {
		return errors.New("the pipe to the starting process is missing")
	}
	defer func() { err = errors.Join(err, pipe.Close()) }()
	if n, err := pipe.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("the process that set up this cluster ended before it was done: %w", err)
	}
	return nil
}

// Environment is what every component gets; nothing of the user's (proxies,
// for example) leaks into the cluster.
func Environment(c *config.Config) []string {
	return []string{"PATH=" + SearchPath(c), "HOME=/root", "LANG=C.UTF-8"}
}

// SearchPath has the cluster's programs before the machine's.
func SearchPath(c *config.Config) string {
	seen := map[string]bool{}
	var dirs []string
	for _, program := range c.Programs {
		if dir := filepath.Dir(program); !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	sort.Strings(dirs)
	return strings.Join(append(dirs, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"), ":")
}

func setUp(c *config.Config, s config.State, role config.Role) error {
	if err := setUpNetwork(); err != nil {
		return err
	}
	hostname := c.NodeName
	if role == config.ControlPlane {
		hostname = "control-plane"
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set the hostname: %w", err)
	}
	// Nothing that is mounted from here on may reach the machine.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if role != config.Node {
		return nil
	}
	if err := mountNode(s); err != nil {
		return err
	}
	return config.WriteContainerd(c, s, probeRuntime())
}

func setUpNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback link: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the loopback link up: %w", err)
	}
	// Per network namespace: the machine's setting is not touched.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("let the namespace forward packets: %w", err)
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %q (%s) at %s: %w", source, kind, target, err)
	}
	return nil
}
