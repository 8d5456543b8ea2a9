package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/internal/boot"
)

// initPath is where the guest's own program is, on every root.
const initPath = "/run/init"

// managementLink is the link to the machine outside.
const managementLink = "mgmt"

type mount struct {
	target, kind, source, options string
	flags                         uintptr
}

// prepare makes of the kernel's first file system, or of the disk, a system
// with drivers and a network.
func prepare() error {
	early := []mount{
		{target: "/proc", kind: "proc"}, {target: "/sys", kind: "sysfs"}, {target: "/dev", kind: "devtmpfs"},
		{target: "/run", kind: "tmpfs", options: "mode=0755"},
	}
	for _, m := range early {
		if err := m.do(); err != nil {
			return err
		}
	}
	if os.Getenv(boot.EnvProbe) != "" {
		return nil
	}
	if err := keepInit(); err != nil {
		return err
	}
	if disk := os.Getenv(boot.EnvDisk); disk != "" {
		if err := switchRoot(disk); err != nil {
			return fmt.Errorf("use the disk %s: %w", disk, err)
		}
	}
	// runc and kubelet expect what systemd does: mounts spread.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("let mounts spread: %w", err)
	}
	if err := loadModules(); err != nil {
		return err
	}
	late := []mount{
		{target: "/dev/pts", kind: "devpts", options: "gid=0,mode=620,ptmxmode=666"},
		{target: "/dev/shm", kind: "tmpfs"}, {target: "/dev/mqueue", kind: "mqueue"},
		{target: "/tmp", kind: "tmpfs"},
		{target: "/sys/fs/cgroup", kind: "cgroup2"}, {target: "/sys/fs/bpf", kind: "bpf"},
		{target: "/sys/kernel/debug", kind: "debugfs"},
		{target: boot.ShareDir, kind: "9p", source: boot.ShareTag, options: "trans=virtio,version=9p2000.L,msize=524288,cache=none"},
	}
	for _, m := range late {
		if err := m.do(); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, filepath.Join("/dev", name)); err != nil && !os.IsExist(err) {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	return network()
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	source := m.source
	if source == "" {
		source = m.kind
	}
	if err := unix.Mount(source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

// keepInit copies this program to where it stays reachable on every root.
func keepInit() error {
	content, err := os.ReadFile("/init")
	if err != nil {
		return fmt.Errorf("read init: %w", err)
	}
	if err := os.WriteFile(initPath, content, 0o755); err != nil {
		return fmt.Errorf("keep init: %w", err)
	}
	return nil
}

// switchRoot makes the disk the root: programs that change their root cannot do
// it on the kernel's first file system.
func switchRoot(disk string) error {
	if err := run("modprobe", "-a", "crc32c_generic", "virtio_blk", "ext4"); err != nil {
		return err
	}
	if err := waitFor(disk); err != nil {
		return err
	}
	const root = "/mnt"
	if err := (mount{target: root, kind: "ext4", source: disk}).do(); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return os.Chdir("/")
}

func loadModules() error {
	modules := strings.FieldsFunc(os.Getenv(boot.EnvModules), func(r rune) bool { return r == ',' })
	return run("modprobe", append([]string{"-a"}, modules...)...)
}

// network sets up the loopback link and the link to the machine outside.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback link: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the loopback link up: %w", err)
	}
	link, err := managed()
	if err != nil {
		return err
	}
	if err := netlink.LinkSetName(link, managementLink); err != nil {
		return fmt.Errorf("name the link to the machine outside: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(boot.GuestAddr), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("give the link to the machine outside an address: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the link to the machine outside up: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(boot.HostAddr)}); err != nil {
		return fmt.Errorf("set the default route: %w", err)
	}
	return nil
}

// managed returns the link whose driver is virtio_net.
func managed() (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the links: %w", err)
	}
	for _, link := range links {
		driver, err := os.Readlink(filepath.Join("/sys/class/net", link.Attrs().Name, "device/driver"))
		if err == nil && filepath.Base(driver) == "virtio_net" {
			return link, nil
		}
	}
	return nil, fmt.Errorf("none of the %d links is of virtio_net", len(links))
}
