package simulated

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// nvidiaMajor is the major number that Linux reserves for NVIDIA's devices
// (Documentation/admin-guide/devices.txt).
const nvidiaMajor = 195

// writeDeviceNodes makes the nodes below root/dev.
func (m *Machine) writeDeviceNodes(root string) error {
	realDriver, err := nvidiaDriverLoaded("/proc/devices")
	if err != nil {
		return err
	}
	w, err := newWriter(root)
	if err != nil {
		return err
	}
	defer w.close()
	for name, device := range m.deviceNodes(realDriver) {
		if err := w.putDevice(path.Join("dev", name), device); err != nil {
			return err
		}
	}
	return nil
}

// deviceNodes gives each node its device number. Where the kernel has no
// driver for NVIDIA's number, opening such a node fails and harms nothing. A
// node that could reach somebody else's driver is /dev/null in disguise: the
// ones whose major number the kernel hands out at run time, and all of them
// where a real NVIDIA driver is loaded, so that a pod with a simulated GPU
// never gets at a real one.
func (m *Machine) deviceNodes(realDriver bool) map[string]uint64 {
	null := unix.Mkdev(1, 3)
	nvidia := func(minor uint32) uint64 {
		if realDriver {
			return null
		}
		return unix.Mkdev(nvidiaMajor, minor)
	}
	nodes := map[string]uint64{
		"nvidiactl":        nvidia(255),
		"nvidia-modeset":   nvidia(254),
		"nvidia-uvm":       null,
		"nvidia-uvm-tools": null,
	}
	for _, g := range m.gpus {
		nodes[fmt.Sprintf("nvidia%d", g.index)] = nvidia(uint32(g.index))
	}
	// The kernel hands out the numbers of RDMA devices, too.
	if m.rdmaDevices() > 0 {
		nodes["infiniband/rdma_cm"] = null
	}
	for i := range m.rdmaDevices() {
		nodes[fmt.Sprintf("infiniband/uverbs%d", i)] = null
		nodes[fmt.Sprintf("infiniband/umad%d", i)] = null
	}
	return nodes
}

// nvidiaDriverLoaded tells whether a driver answers to NVIDIA's major number.
func nvidiaDriverLoaded(devices string) (bool, error) {
	list, err := os.ReadFile(devices)
	if err != nil {
		return false, fmt.Errorf("looking for a real NVIDIA driver: %w", err)
	}
	return regexp.MustCompile(fmt.Sprintf(`(?m)^\s*%d\s`, nvidiaMajor)).Match(list), nil
}

func (w *writer) putDevice(path string, device uint64) error {
	const mode = unix.S_IFCHR | 0o666
	var now unix.Stat_t
	err := unix.Lstat(filepath.Join(w.root, path), &now)
	if err == nil && now.Mode == mode && now.Rdev == device {
		return nil
	}
	return w.replace(path, func(staged string) error {
		if err := unix.Mknod(staged, mode, int(device)); err != nil {
			return mknodError(err, device)
		}
		return os.Chmod(staged, 0o666)
	})
}

func mknodError(err error, device uint64) error {
	advice := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		advice = ": it takes root in the host's user namespace with CAP_MKNOD, " +
			"and a device cgroup that allows `c *:* m`; a privileged container has both"
	}
	return fmt.Errorf("making a device node %d:%d: %w%s", unix.Major(device), unix.Minor(device), err, advice)
}
