package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// machine is a simulated DGX and a family that looks at it.
type machine struct {
	*simulated.Machine
	t    testing.TB
	host string
	opts Options
	// opened counts how often NVML was opened.
	opened atomic.Int32
}

// newMachine writes a machine whose driver is yet to be installed.
func newMachine(t testing.TB, model simulated.Model) *machine {
	t.Helper()
	m := &machine{Machine: simulated.New(model, "node-1"), t: t, host: t.TempDir()}
	m.opts = Options{
		SysfsRoot:   filepath.Join(m.host, "sys"),
		HostRoot:    m.host,
		CDIHookPath: "/var/lib/kubelet/plugins/eks-hybrid-dra/nvidia-cdi-hook",
		OpenNVML: func(string) nvml.Interface {
			m.opened.Add(1)
			return m.NVML()
		},
	}
	m.NVIDIASMI = filepath.Join(t.TempDir(), "nvidia-smi")
	m.must(os.WriteFile(m.NVIDIASMI, []byte("#!/bin/sh\n"), 0o755))
	for i, address := range []string{
		"0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0",
		"0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0",
	} {
		m.addFunction(address, strconv.Itoa(i/4), "nvidia")
	}
	return m
}

// addFunction puts a PCI function straight below a host bridge.
func (m *machine) addFunction(address, numa, driver string) {
	m.t.Helper()
	path := filepath.Join("devices", "pci"+address[:7], address)
	dir, bus := filepath.Join(m.opts.SysfsRoot, path), filepath.Join(m.opts.SysfsRoot, "bus/pci/devices")
	m.must(os.MkdirAll(dir, 0o755))
	m.must(os.MkdirAll(bus, 0o755))
	for name, value := range map[string]string{"vendor": "0x10de", "device": "0x2335", "class": "0x030200", "numa_node": numa} {
		m.must(os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644))
	}
	m.must(os.Symlink("../../../bus/pci/drivers/"+driver, filepath.Join(dir, "driver")))
	m.must(os.Symlink("../../../"+path, filepath.Join(bus, address)))
}

// wholeSysfs puts a DGX's whole sysfs in the place of the one that has nothing
// but GPUs, which is faster to write.
func (m *machine) wholeSysfs() {
	m.t.Helper()
	m.must(os.RemoveAll(m.opts.SysfsRoot))
	m.must(m.WriteSysfs(m.opts.SysfsRoot))
}

func newMachineWithDriver(t testing.TB, model simulated.Model) *machine {
	t.Helper()
	m := newMachine(t, model)
	m.installDriver()
	return m
}

const driverRoot = "/run/nvidia/driver"

func (m *machine) installDriver() {
	m.t.Helper()
	if err := m.WriteDriverRoot(m.path(driverRoot)); errors.Is(err, unix.EPERM) {
		m.t.Skipf("this test makes device nodes: %v", err)
	} else if err != nil {
		m.t.Fatal(err)
	}
}

// path returns where the test sees a path of the host.
func (m *machine) path(host string) string { return filepath.Join(m.host, host) }

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// gpu returns NVML's handle of one GPU.
func (m *machine) gpu(index int) nvml.Device {
	m.t.Helper()
	handle, ret := m.NVML().DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		m.t.Fatal(ret)
	}
	return handle
}

// unplug takes a GPU out of the PCI bus, and returns what puts it in again.
func (m *machine) unplug(address string) (back func()) {
	m.t.Helper()
	path := filepath.Join(m.opts.SysfsRoot, "bus/pci/devices", address)
	target, err := os.Readlink(path)
	m.must(err)
	m.must(os.Remove(path))
	return func() {
		m.t.Helper()
		m.must(os.Symlink(target, path))
	}
}

func devices(t *testing.T, f *Family) device.Inventory {
	t.Helper()
	inventory, err := f.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inventory
}

func names(inventory device.Inventory) []string {
	var out []string
	for _, d := range inventory.Devices {
		out = append(out, d.Name)
	}
	return out
}
