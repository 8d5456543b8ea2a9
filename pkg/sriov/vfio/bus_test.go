package vfio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const (
	one = "0000:18:00.1"
	two = "0000:18:00.2"
)

// bus is a bus whose kernel does what it is told, or answers with an error.
type bus struct {
	t       *testing.T
	root    string
	written []string
	err     error
	deaf    bool // accepts everything and does nothing
}

func newBus(t *testing.T) *bus {
	t.Helper()
	b := &bus{t: t, root: t.TempDir()}
	b.folders("bus/pci/drivers/vfio-pci", "bus/pci/drivers/mlx5_core", "bus/pci/drivers/pcieport", "kernel/iommu_groups/7/devices")
	return b
}

func (b *bus) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bus) folders(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.must(os.MkdirAll(filepath.Join(b.root, name), 0o755))
	}
}

func (b *bus) device(address, driver, class string) topology.Address {
	b.t.Helper()
	dir := filepath.Join(b.root, "bus/pci/devices", address)
	b.must(os.MkdirAll(dir, 0o755))
	b.must(os.WriteFile(filepath.Join(dir, "driver_override"), []byte("(null)\n"), 0o600))
	b.must(os.WriteFile(filepath.Join(dir, "class"), []byte(class), 0o600))
	if driver != "" {
		b.must(os.Symlink("../../drivers/"+driver, filepath.Join(dir, "driver")))
	}
	b.must(os.Symlink("../../../../kernel/iommu_groups/7", filepath.Join(dir, "iommu_group")))
	b.must(os.Symlink(dir, filepath.Join(b.root, "kernel/iommu_groups/7/devices", address)))
	a, err := topology.ParseAddress(address)
	b.must(err)
	return a
}

func (b *bus) bus() Bus { return New(b.root, b.write) }

func (b *bus) write(path, value string) error {
	rel, err := filepath.Rel(b.root, path)
	b.must(err)
	b.written = append(b.written, strings.TrimPrefix(rel, "bus/pci/")+" "+strings.TrimSpace(value))
	if b.err != nil || b.deaf {
		return b.err
	}
	driver := filepath.Join(b.root, "bus/pci/devices", strings.TrimSpace(value), "driver")
	switch filepath.Base(path) {
	case "unbind":
		return os.Remove(driver)
	case "bind":
		return os.Symlink(filepath.Dir(path), driver)
	case "drivers_probe":
		return os.Symlink("../../drivers/mlx5_core", driver)
	default:
		return os.WriteFile(path, []byte(value), 0o600)
	}
}

func (b *bus) wrote(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.written); diff != "" {
		b.t.Errorf("written to sysfs (-want +got):\n%s", diff)
	}
	b.written = nil
}

func TestBindAndBack(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	a := b.device(one, "mlx5_core", "0x020000")
	before, err := b.bus().Binding(a)
	b.must(err)
	if diff := cmp.Diff(Binding{Driver: "mlx5_core"}, before); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	b.must(b.bus().Bind(a, Binding{Driver: Driver, Override: Driver}))
	b.wrote("devices/"+one+"/driver_override vfio-pci", "drivers/mlx5_core/unbind "+one, "drivers/vfio-pci/bind "+one)
	b.must(b.bus().Bind(a, Binding{Driver: Driver, Override: Driver}))
	b.wrote()
	b.must(b.bus().Bind(a, before))
	b.wrote("devices/"+one+"/driver_override ", "drivers/vfio-pci/unbind "+one, "drivers/mlx5_core/bind "+one)
	after, err := b.bus().Binding(a)
	b.must(err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	b.must(b.bus().Rebind(a))
	b.wrote("drivers/mlx5_core/unbind "+one, "drivers/mlx5_core/bind "+one)
	b.must(b.bus().Bind(a, Binding{}))
	b.wrote("drivers/mlx5_core/unbind " + one)
	if err := b.bus().Rebind(a); err == nil {
		t.Error("a function without a driver was bound anew")
	}
	b.must(b.bus().Default(a))
	b.wrote("drivers_probe " + one)
}

func TestBindFails(t *testing.T) {
	t.Parallel()
	want := Binding{Driver: Driver, Override: Driver}
	for _, tc := range []struct {
		name   string
		change func(*bus)
		want   []string
	}{
		{"not loaded", func(b *bus) { b.must(os.Remove(filepath.Join(b.root, "bus/pci/drivers/vfio-pci"))) }, []string{one, "modprobe vfio-pci"}},
		{"refused", func(b *bus) { b.err = syscall.EACCES }, []string{one, "permission denied"}},
		{"ignored", func(b *bus) { b.deaf = true }, []string{one, "mlx5_core", "did nothing"}},
		{"gone", func(b *bus) { b.must(os.RemoveAll(filepath.Join(b.root, "bus/pci/devices", one))) }, []string{one, "no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBus(t)
			a := b.device(one, "mlx5_core", "0x020000")
			tc.change(b)
			err := b.bus().Bind(a, want)
			if err == nil {
				t.Fatal("no error")
			}
			for _, text := range tc.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q does not say %q", err, text)
				}
			}
		})
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	a := b.device(one, "mlx5_core", "0x020000")
	b.device("0000:17:00.0", "pcieport", "0x060400")
	b.device(two, "mlx5_core", "0x020000")
	b.device("0000:18:00.3", "", "0x020000")
	b.device("0000:18:00.4", "vfio-pci", "0x020000")
	group, err := b.bus().Group(a)
	b.must(err)
	if group.Name != "7" || len(group.Others) != 3 {
		t.Errorf("got %+v", group)
	}
	foreign := group.Foreign()
	if len(foreign) != 1 || foreign[0].String() != two+" (driver mlx5_core)" {
		t.Errorf("in the way: %v", foreign)
	}
	b.must(os.Remove(filepath.Join(b.root, "bus/pci/devices", one, "iommu_group")))
	if _, err := b.bus().Group(a); !errors.Is(err, ErrNoGroup) || !strings.Contains(err.Error(), one) {
		t.Errorf("a function without IOMMU: %v", err)
	}
}

func TestWriteMakesNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "bind")
	if err := Write(path, "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, "x"); err != nil {
		t.Error(err)
	}
}
