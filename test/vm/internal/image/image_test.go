package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleClosure(t *testing.T) {
	const dependencies = `kernel/net/veth.ko.xz:
kernel/drivers/igb.ko.xz: kernel/drivers/dca.ko.xz kernel/i2c-algo-bit.ko.xz
kernel/drivers/dca.ko.xz:
kernel/i2c-algo-bit.ko.xz:
kernel/vfio-pci.ko.xz: kernel/vfio.ko.xz
kernel/vfio.ko.xz:
`
	for _, test := range []struct {
		name   string
		wanted []string
		want   []string
		fails  string
	}{
		{"alone", []string{"veth"}, []string{"kernel/net/veth.ko.xz"}, ""},
		{"with what it needs", []string{"igb"}, []string{"kernel/drivers/igb.ko.xz", "kernel/drivers/dca.ko.xz", "kernel/i2c-algo-bit.ko.xz"}, ""},
		{"either spelling, once", []string{"vfio_pci", "vfio-pci", "vfio"}, []string{"kernel/vfio-pci.ko.xz", "kernel/vfio.ko.xz"}, ""},
		{"built in", []string{"virtio-pci"}, nil, ""},
		{"not there", []string{"netdevsim"}, nil, "no module netdevsim"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := moduleClosure(dependencies, "kernel/drivers/virtio/virtio_pci.ko\n", test.wanted)
			if (err == nil) != (test.fails == "") || (err != nil && !strings.Contains(err.Error(), test.fails)) {
				t.Fatalf("got %v, want an error about %q", err, test.fails)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheDiskIsMadeAnewWhenAProgramChanges(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kubelet")
	key := func(content string) string {
		t.Helper()
		if err := os.WriteFile(program, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		key, err := Base{key: "base"}.diskKey(map[string]string{"usr/local/bin/kubelet": program})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	if a, b := key("old"), key("newer"); a == b {
		t.Error("another program gives the same disk")
	}
	if _, err := (Base{}).diskKey(map[string]string{"x": filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a program that is not there gives a disk")
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.MkdirAll(filepath.Join(from, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "usr/bin/a"), []byte("a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/bin", filepath.Join(from, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(to, from); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(to, "bin/a"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v", info, err)
	}
}
