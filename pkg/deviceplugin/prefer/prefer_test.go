package prefer

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dgx are eight GPUs, four on each NUMA node.
func dgx(taken ...int) []Device {
	var devices []Device
	for n := range 8 {
		if !slices.Contains(taken, n) {
			devices = append(devices, Device{ID: fmt.Sprint("gpu-", n), NUMA: n / 4})
		}
	}
	return devices
}

// vfs are of four ports, two on each NUMA node, with eight VFs each.
func vfs() []Device {
	var devices []Device
	for port := range 4 {
		for n := range 8 {
			devices = append(devices, Device{ID: fmt.Sprintf("p%d-%d", port, n), NUMA: port / 2, Parent: fmt.Sprint("p", port)})
		}
	}
	return devices
}

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct {
		available []Device
		must      []string
		size      int
		want      []string
	}{
		"one":                               {dgx(), nil, 1, []string{"gpu-0"}},
		"half a machine":                    {dgx(), nil, 4, []string{"gpu-0", "gpu-1", "gpu-2", "gpu-3"}},
		"the node with enough":              {dgx(0, 1), nil, 3, []string{"gpu-4", "gpu-5", "gpu-6"}},
		"the node with the least to spare":  {dgx(4, 5), nil, 2, []string{"gpu-6", "gpu-7"}},
		"no node has enough":                {dgx(0), nil, 5, []string{"gpu-4", "gpu-5", "gpu-6", "gpu-7", "gpu-1"}},
		"where the others must be":          {dgx(), []string{"gpu-5"}, 2, []string{"gpu-5", "gpu-4"}},
		"must alone":                        {dgx(), []string{"gpu-5", "gpu-0"}, 2, []string{"gpu-0", "gpu-5"}},
		"all":                               {dgx(), nil, 8, []string{"gpu-0", "gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5", "gpu-6", "gpu-7"}},
		"more than there is":                {dgx(0, 1, 2, 3, 4, 5, 6), nil, 2, []string{"gpu-7"}},
		"nothing":                           {dgx(), nil, 0, nil},
		"VFs of both ports of a node":       {vfs(), nil, 2, []string{"p0-0", "p1-0"}},
		"a VF of the other port":            {vfs(), []string{"p2-3"}, 2, []string{"p2-3", "p3-0"}},
		"the port with more left":           {vfs()[3:16], nil, 1, []string{"p1-0"}},
		"unknown nodes come last":           {append([]Device{{ID: "far", NUMA: NoNUMA}}, dgx()...), nil, 1, []string{"gpu-0"}},
		"devices without NUMA nodes at all": {[]Device{{ID: "a", NUMA: NoNUMA}, {ID: "b", NUMA: NoNUMA}}, nil, 1, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Choose(test.available, test.must, test.size)); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
		})
	}
}

func BenchmarkChoose(b *testing.B) {
	for name, devices := range map[string][]Device{"8 of 8 GPUs": dgx(), "8 of 32 VFs": vfs()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Choose(devices, nil, 8)
			}
		})
	}
}
