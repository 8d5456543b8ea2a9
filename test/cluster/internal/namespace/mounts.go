package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

// mountNode gives the node its own standard folders, /run, /sys and kernel
// settings. The machine's / stays visible besides.
func mountNode(s config.State) error {
	if err := mountSys(s); err != nil {
		return err
	}
	if err := mountRun(s); err != nil {
		return err
	}
	for target, source := range config.NodeFolders(s) {
		// The mount point is the one thing that may stay on the machine: an
		// empty standard folder.
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make the mount point %s: %w", target, err)
		}
		if err := mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mountSettings(s); err != nil {
		return err
	}
	// kubelet wants its folder shared, so that mounts made in containers with
	// bidirectional propagation come back.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// mountSys mounts a sysfs that shows this network namespace's links, with what
// is mounted below the machine's /sys (cgroups above all) mounted in it again.
func mountSys(s config.State) error {
	below, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	stage := s.Path("node", "stage")
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return fmt.Errorf("make a folder to mount in: %w", err)
	}
	if err := mount("sysfs", stage, "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, path := range below {
		target := filepath.Join(stage, strings.TrimPrefix(path, "/sys"))
		err := mount(path, target, "", unix.MS_BIND|unix.MS_REC, "")
		// Only cgroups are needed; a debug file system that may not be bound is
		// not worth a failure.
		if err != nil && strings.HasPrefix(path, "/sys/fs/cgroup") {
			return err
		}
	}
	return mount(stage, "/sys", "", unix.MS_MOVE, "")
}

// mountsBelow lists the topmost mount points below a folder.
func mountsBelow(dir string) ([]string, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var top []string
	for _, line := range strings.Split(string(content), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		nested := false
		for _, path := range top {
			nested = nested || fields[4] == path || strings.HasPrefix(fields[4], path+"/")
		}
		if !nested {
			top = append(top, fields[4])
		}
	}
	return top, nil
}

// keptInRun are the machine's folders that a driver outside the cluster may
// have put under /run.
func keptInRun() []string { return []string{"nvidia", "nvidia-persistenced", "nvidia-fabricmanager"} }

// mountRun gives the node an empty /run, as after a boot.
func mountRun(s config.State) error {
	stage := s.Path("node", "stage")
	if err := mount("tmpfs", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, name := range keptInRun() {
		if _, err := os.Stat(filepath.Join("/run", name)); err != nil {
			continue
		}
		target := filepath.Join(stage, name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return fmt.Errorf("make the mount point %s: %w", name, err)
		}
		if err := mount(filepath.Join("/run", name), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	if err := mount(stage, "/run", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if resolved, err := filepath.EvalSymlinks("/var/run"); err != nil || resolved != "/run" {
		if err := os.MkdirAll("/var/run", 0o755); err != nil {
			return fmt.Errorf("make /var/run: %w", err)
		}
		return mount("/run", "/var/run", "", unix.MS_BIND, "")
	}
	return nil
}

// BootIDFile holds the node's boot id, which a reboot of the node changes.
func BootIDFile(s config.State) string { return s.Path("node", "boot-id") }

// mountSettings puts files of our own over kernel settings: the boot id, so
// that a node can be rebooted without the machine, and the settings that
// kubelet would change for the whole machine. It finds them as it wants them.
func mountSettings(s config.State) error {
	bootID, err := os.ReadFile(BootIDFile(s))
	if err != nil {
		return fmt.Errorf("read the node's boot id: %w", err)
	}
	settings := map[string]string{
		"kernel/random/boot_id": string(bootID),
		"vm/overcommit_memory":  "1\n", "vm/panic_on_oom": "0\n",
		"kernel/panic": "10\n", "kernel/panic_on_oops": "1\n",
		"kernel/keys/root_maxkeys": "1000000\n", "kernel/keys/root_maxbytes": "25000000\n",
	}
	const dir = "/run/cluster-settings"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the kernel settings: %w", err)
	}
	for name, value := range settings {
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			continue
		}
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return fmt.Errorf("write the setting %s: %w", name, err)
		}
		if err := mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// probeRuntime finds out what the kernel lets containerd do here.
func probeRuntime() config.Runtime {
	r := config.Runtime{Snapshotter: "overlayfs"}
	if err := tryOverlay("/var/lib/containerd/probe"); err != nil {
		r.Snapshotter = "native"
	}
	if ok, err := HasCapability(unix.CAP_SYS_RESOURCE); err != nil || !ok {
		r.RestrictOOMScore = true
	}
	return r
}

func tryOverlay(dir string) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("make a folder to try overlayfs in: %w", err)
		}
	}
	data := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, data); err != nil {
		return err
	}
	if err := unix.Unmount(filepath.Join(dir, "merged"), 0); err != nil {
		return fmt.Errorf("unmount the tried overlay: %w", err)
	}
	return nil
}

// HasCapability says whether this process has an effective capability, by its
// number in linux/capability.h.
func HasCapability(number int) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read this process' capabilities: %w", err)
	}
	return data[number/32].Effective&(1<<(number%32)) != 0, nil
}
