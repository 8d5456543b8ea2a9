package gpu

import (
	"errors"
	"os"
	"path/filepath"
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
	m.must(m.WriteSysfs(m.opts.SysfsRoot))
	return m
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

// unplug takes a GPU out of the PCI bus.
func (m *machine) unplug(address string) {
	m.t.Helper()
	m.must(os.Remove(filepath.Join(m.opts.SysfsRoot, "bus/pci/devices", address)))
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
