//go:build gpu

package realgpu

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// TestCapture writes down what this machine tells: our inventory and edits,
// nvidia-smi's full report, and the PCI functions of GPUs and NICs with the
// bridges above them.
func TestCapture(t *testing.T) {
	family, inventory := discover(t)
	dir := os.Getenv("EKS_HYBRID_DRA_CAPTURE")
	if dir == "" {
		t.Skip("nothing is captured: EKS_HYBRID_DRA_CAPTURE names no folder")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	captured := map[string]any{"devices": inventory.Devices}
	for _, d := range inventory.Devices {
		captured["edits of "+d.Name] = prepare(t, family, d)
	}
	data, err := json.MarshalIndent(captured, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	save(t, filepath.Join(dir, "gpus.json"), data)
	save(t, filepath.Join(dir, "pci.txt"), []byte(pciTree(t)))
	for file, args := range map[string][]string{"nvidia-smi.xml": {"-q", "-x"}, "topo.txt": {"topo", "-m"}} {
		out, err := exec.CommandContext(t.Context(), "nvidia-smi", args...).CombinedOutput()
		if err != nil {
			t.Errorf("nvidia-smi %v: %v\n%s", args, err, out)
		}
		save(t, filepath.Join(dir, file), out)
	}
}

func save(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("wrote %s, %d bytes", file, len(data))
}

// pciTree has a line for each function: its path and the values of its files.
func pciTree(t *testing.T) string {
	t.Helper()
	const nvidia, mellanox = 0x10de, 0x15b3
	sys := topology.At("/sys")
	addresses, err := sys.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[topology.Address]bool{}
	for _, address := range addresses {
		if node, err := sys.Node(address); err == nil && (node.Vendor == nvidia || node.Vendor == mellanox) {
			wanted[address] = true
			for _, bridge := range node.Bridges {
				wanted[bridge] = true
			}
		}
	}
	var b strings.Builder
	for _, address := range addresses {
		if !wanted[address] {
			continue
		}
		dir := filepath.Join("/sys/bus/pci/devices", address.String())
		link, err := os.Readlink(dir)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(&b, strings.TrimLeft(link, "./"))
		for _, name := range []string{
			"vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision",
			"numa_node", "local_cpulist", "current_link_speed", "current_link_width", "sriov_totalvfs",
		} {
			if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				fmt.Fprintf(&b, " %s=%q", name, strings.TrimSpace(string(data)))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
