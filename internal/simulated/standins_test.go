package simulated

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// someMachine is a sysfs with two functions below one switch and one in a root
// port, which nothing uses, and a NIC, which has a driver.
func someMachine(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	const behind = "pci0000:40/0000:40:00.0/0000:41:00.0/"
	addFunction(t, root, behind+"0000:42:00.0/0000:43:00.0", "0", "igb")
	addFunction(t, root, behind+"0000:42:02.0/0000:45:00.0", "0", "")
	addFunction(t, root, behind+"0000:42:03.0/0000:46:00.0", "0", "")
	addFunction(t, root, "pci0000:80/0000:80:01.0/0000:82:00.0", "-1", "")
	return root
}

func addFunction(t *testing.T, root, path, numa, driver string) {
	t.Helper()
	tr := tree{}
	dir := filepath.Join("devices", path)
	for name, text := range map[string]string{"vendor": "0x1234", "device": "0x11e8", "class": "0x00ff00", "numa_node": numa} {
		tr.file(filepath.Join(dir, name), text)
	}
	if driver != "" {
		tr.link(filepath.Join(dir, "driver"), filepath.Join("bus/pci/drivers", driver))
	}
	tr.link(filepath.Join("bus/pci/devices", filepath.Base(path)), dir)
	if err := tr.write(root); err != nil {
		t.Fatal(err)
	}
}

func addresses(t *testing.T, texts ...string) []topology.Address {
	t.Helper()
	var all []topology.Address
	for _, text := range texts {
		address, err := topology.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, address)
	}
	return all
}

func TestGPUsStandInForFunctionsOfTheMachine(t *testing.T) {
	m, err := NewAt(DGXH200, "node-a", topology.At(someMachine(t)), addresses(t, "0000:82:00.0", "0000:46:00.0", "0000:45:00.0"))
	if err != nil {
		t.Fatal(err)
	}
	lib := m.NVML()
	callAll(t, lib, ignore)
	var got []string
	for i := range 3 {
		d := handle(t, lib, i)
		callAll(t, d, ignore)
		info, _ := d.GetPciInfo()
		level, _ := handle(t, lib, 0).GetTopologyCommonAncestor(d)
		got = append(got, fmt.Sprintf("%02x level %d", info.Bus, level))
	}
	want := []string{
		fmt.Sprint("45 level ", nvml.TOPOLOGY_INTERNAL), fmt.Sprint("46 level ", nvml.TOPOLOGY_SINGLE), fmt.Sprint("82 level ", nvml.TOPOLOGY_SYSTEM),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
	if count, _ := lib.DeviceGetCount(); count != 3 || len(m.NICs()) != 0 {
		t.Errorf("%d GPUs and %d NICs", count, len(m.NICs()))
	}
	if _, ret := handle(t, lib, 0).GetCpuAffinity(1); ret != nvml.ERROR_NOT_SUPPORTED {
		t.Errorf("the CPUs beside a GPU are told, though they are this machine's: %v", ret)
	}
	if err := m.WriteSysfs(t.TempDir()); err == nil {
		t.Error("a sysfs was written for a machine that has its own")
	}
}

func TestStandInsThatMakeNoSenseAreRefused(t *testing.T) {
	var nine []string
	for i := range 9 {
		nine = append(nine, fmt.Sprintf("0000:4%x:00.0", i))
	}
	tests := map[string]struct {
		addresses []string
		withGPU   bool
		says      []string
	}{
		"none":            {says: []string{"0 addresses"}},
		"too many":        {addresses: nine, says: []string{"9 addresses", "dgx-h200"}},
		"twice":           {addresses: []string{"0000:45:00.0", "0000:46:00.0", "00000000:45:00.0"}, says: []string{"0000:45:00.0", "twice"}},
		"no function":     {addresses: []string{"0000:45:00.0", "0000:47:00.0"}, says: []string{"0000:47:00.0"}},
		"function in use": {addresses: []string{"0000:43:00.0"}, says: []string{"0000:43:00.0", "igb"}},
		"real GPU":        {addresses: []string{"0000:45:00.0"}, withGPU: true, says: []string{"0000:1b:00.0", "real"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := someMachine(t)
			if test.withGPU {
				const gpu = "pci0000:15/0000:15:01.0/0000:1b:00.0"
				addFunction(t, root, gpu, "0", "nvidia")
				for file, text := range map[string]string{"vendor": "0x10de\n", "class": "0x030200\n"} {
					if err := os.WriteFile(filepath.Join(root, "devices", gpu, file), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := NewAt(DGXH200, "node-a", topology.At(root), addresses(t, test.addresses...))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, text := range test.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
		})
	}
}
