package topology_test

import (
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// The relations that nvidia-smi prints for a DGX between its GPUs and its
// compute NICs.
func TestDGX(t *testing.T) {
	root := t.TempDir()
	if err := simulated.New(simulated.DGXH200, "node-1").WriteSysfs(root); err != nil {
		t.Fatal(err)
	}
	gpus := []string{"1b", "43", "52", "61", "9d", "c3", "d1", "df"}
	nics := []string{"18", "40", "4f", "5e", "9a", "c0", "ce", "dc"}
	for i, gpu := range gpus {
		for j, nic := range nics {
			want := topology.SYS
			switch {
			case i == j:
				want = topology.PXB
			case i/4 == j/4:
				want = topology.NODE
			}
			a, b := node(t, root, gpu), node(t, root, nic)
			if got := topology.Relate(a, b); got != want {
				t.Errorf("GPU %s and NIC %s: got %s, want %s", a.Address, b.Address, got, want)
			}
		}
	}
}

func node(t *testing.T, root, bus string) topology.Node {
	t.Helper()
	address, err := topology.ParseAddress("0000:" + bus + ":00.0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := topology.At(root).Node(address)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
