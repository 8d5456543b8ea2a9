package topology

import (
	"testing"
)

func TestRelate(t *testing.T) {
	const (
		dgxNIC  = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0"
		dgxVF   = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.1"
		dgxGPU  = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:02.0/0000:19:00.0/0000:1a:00.0/0000:1b:00.0"
		hgxNIC  = "pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:1c:00.0"
		port2   = "pci0000:15/0000:15:02.0/0000:1d:00.0"
		other   = "pci0000:3d/0000:3d:01.0/0000:40:00.0"
		direct  = "pci0000:00/0000:00:05.0"
		direct1 = "pci0000:00/0000:00:05.1"
		direct2 = "pci0000:00/0000:00:06.0"
		rootA   = "platform/a/0000:01:00.0"
		rootB   = "platform/b/0000:02:00.0"
	)
	for _, tc := range []struct {
		name       string
		a, b       string
		numaA      string
		numaB      string
		want       string
		wantCommon int
	}{
		{name: "ports of one switch", a: dgxNIC, b: hgxNIC, want: "PIX", wantCommon: 2},
		{name: "functions of one device", a: dgxNIC, b: dgxVF, want: "PIX", wantCommon: 3},
		{name: "functions of one device in the root", a: direct, b: direct1, want: "PIX"},
		{name: "a switch behind a switch, as in a DGX", a: dgxGPU, b: dgxNIC, want: "PXB", wantCommon: 2},
		{name: "two root ports", a: dgxNIC, b: port2, want: "PHB"},
		{name: "two devices in the root", a: direct, b: direct2, want: "PHB"},
		{name: "two host bridges, one NUMA node", a: dgxNIC, b: other, numaA: "0", numaB: "0", want: "NODE"},
		{name: "two NUMA nodes", a: dgxNIC, b: other, numaA: "0", numaB: "1", want: "SYS"},
		{name: "two host bridges, one NUMA node unknown", a: dgxNIC, b: other, numaA: "0", numaB: "-1", want: "unknown"},
		{name: "no host bridges, NUMA known", a: rootA, b: rootB, numaA: "0", numaB: "0", want: "NODE"},
		{name: "no host bridges, nothing known", a: rootA, b: rootB, want: "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTree(t)
			sys := At(w.root)
			a, err := sys.Node(w.add(tc.a, tc.numaA))
			w.must(err)
			b, err := sys.Node(w.add(tc.b, tc.numaB))
			w.must(err)
			if got := Relate(a, b).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := Relate(b, a).String(); got != tc.want {
				t.Errorf("the other way round: got %s, want %s", got, tc.want)
			}
			if got := CommonBridges(a, b); got != tc.wantCommon {
				t.Errorf("got %d common bridges, want %d", got, tc.wantCommon)
			}
		})
	}
}

// The order of the constants is what ranking relies on.
func TestNearerIsGreater(t *testing.T) {
	order := []Relation{Unknown, SYS, NODE, PHB, PXB, PIX}
	for i := 1; i < len(order); i++ {
		if order[i] <= order[i-1] {
			t.Errorf("%s is not greater than %s", order[i], order[i-1])
		}
	}
}
