package topology

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
)

// tree writes a sysfs with one device per path below devices/, such as
// "pci0000:15/0000:15:01.0/0000:18:00.0", all on the given NUMA node. Bridges
// on the way become devices too, as in the real one.
type tree struct {
	t    *testing.T
	root string
}

func newTree(t *testing.T) tree {
	return tree{t: t, root: t.TempDir()}
}

func (w tree) add(path string, numa string) Address {
	w.t.Helper()
	dir := filepath.Join(w.root, "devices", path)
	w.must(os.MkdirAll(dir, 0o755))
	for name, value := range map[string]string{"vendor": "0x10de", "device": "0x2335", "class": "0x030200", "numa_node": numa} {
		if value != "" {
			w.must(os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644))
		}
	}
	bus := filepath.Join(w.root, "bus", "pci", "devices")
	w.must(os.MkdirAll(bus, 0o755))
	w.must(os.Symlink(filepath.Join("..", "..", "..", "devices", path), filepath.Join(bus, filepath.Base(path))))
	address, err := ParseAddress(filepath.Base(path))
	w.must(err)
	return address
}

func (w tree) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func address(t *testing.T, s string) Address {
	t.Helper()
	a, err := ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNode(t *testing.T) {
	for _, tc := range []struct {
		name, path, numa string
		wantRoot         string
		wantBridges      []string
		wantNUMA         *int
		wantAttributes   map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
	}{
		{
			name:        "below a switch",
			path:        "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0",
			numa:        "1",
			wantRoot:    "pci0000:15",
			wantBridges: []string{"0000:15:01.0", "0000:16:00.0", "0000:17:00.0"},
			wantNUMA:    ptr.To(1),
			wantAttributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"resource.kubernetes.io/pciBusID": {StringValue: ptr.To("0000:18:00.0")},
				"resource.kubernetes.io/pcieRoot": {StringValue: ptr.To("pci0000:15")},
				"resource.kubernetes.io/numaNode": {IntValue: ptr.To[int64](1)},
			},
		},
		{
			name:     "no NUMA node",
			path:     "pci0000:00/0000:00:05.0",
			numa:     "-1",
			wantRoot: "pci0000:00",
			wantAttributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"resource.kubernetes.io/pciBusID": {StringValue: ptr.To("0000:00:05.0")},
				"resource.kubernetes.io/pcieRoot": {StringValue: ptr.To("pci0000:00")},
			},
		},
		{
			// Hyper-V, as in Azure. The standard attribute is defined for
			// host bridges straight below devices/ only.
			name:     "no NUMA file, host bridge below a virtual bus",
			path:     "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/47505500-0001-0000-3130-444531303132/pci0001:00/0001:00:00.0",
			wantRoot: "pci0001:00",
			wantAttributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"resource.kubernetes.io/pciBusID": {StringValue: ptr.To("0001:00:00.0")},
			},
		},
		{
			name: "no host bridge shown",
			path: "platform/soc/0000:01:00.0",
			wantAttributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"resource.kubernetes.io/pciBusID": {StringValue: ptr.To("0000:01:00.0")},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTree(t)
			want := Node{Address: w.add(tc.path, tc.numa), Root: tc.wantRoot, NUMA: tc.wantNUMA, Vendor: 0x10de, DeviceID: 0x2335, Class: 0x030200}
			for _, bridge := range tc.wantBridges {
				want.Bridges = append(want.Bridges, address(t, bridge))
			}
			got, err := At(w.root).Node(want.Address)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Bridges) == 0 {
				got.Bridges = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantAttributes, At(w.root).StandardAttributes(got)); diff != "" {
				t.Errorf("standard attributes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodeErrors(t *testing.T) {
	w := newTree(t)
	gpu := w.add("pci0000:15/0000:18:00.0", "0")
	odd := w.add("pci0000:15/0000:19:00.0", "many")
	wrong := filepath.Join(w.root, "bus/pci/devices/0000:1a:00.0")
	w.must(os.Symlink("../../../devices/pci0000:15/0000:18:00.0", wrong))

	if _, err := At(w.root).Node(address(t, "0000:99:00.0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a device that is not there: got %v, want fs.ErrNotExist", err)
	}
	if _, err := At(w.root).Node(odd); err == nil || !strings.Contains(err.Error(), "NUMA node of PCI device 0000:19:00.0") {
		t.Errorf("a NUMA node that is no number: got %v", err)
	}
	if _, err := At(w.root).Node(address(t, "0000:1a:00.0")); err == nil || !strings.Contains(err.Error(), "another device") {
		t.Errorf("a link to another device: got %v", err)
	}
	if s := At(w.root); !s.Exists(gpu) || s.Exists(address(t, "0000:99:00.0")) {
		t.Error("Exists does not tell a device that is there from one that is not")
	}
}

func TestAddresses(t *testing.T) {
	w := newTree(t)
	c, a, b := w.add("pci0001:00/0001:01:00.0", "0"), w.add("pci0000:15/0000:18:00.0", "0"), w.add("pci0000:15/0000:18:00.1", "0")
	got, err := At(w.root).Addresses()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Address{a, b, c}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if got, err := At(t.TempDir()).Addresses(); err != nil || len(got) != 0 {
		t.Errorf("a machine without PCI: got %v, %v", got, err)
	}
}

func TestDriver(t *testing.T) {
	w := newTree(t)
	gpu := w.add("pci0000:15/0000:18:00.0", "0")
	w.must(os.Symlink("../../../bus/pci/drivers/vfio-pci", filepath.Join(w.root, "devices/pci0000:15/0000:18:00.0/driver")))
	node, err := At(w.root).Node(gpu)
	if err != nil {
		t.Fatal(err)
	}
	if node.Driver != "vfio-pci" {
		t.Errorf("got driver %q, want vfio-pci", node.Driver)
	}
}
