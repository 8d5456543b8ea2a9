package topology

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// board is a machine for pairing: paths below /sys/devices and NUMA nodes of
// GPUs and NICs, as "path@numa".
type board struct {
	gpus, nics []string
}

func (b board) nodes(t *testing.T) (gpus, nics []Node) {
	t.Helper()
	w := newTree(t)
	sys := At(w.root)
	read := func(places []string) []Node {
		var nodes []Node
		for _, place := range places {
			path, numa, _ := strings.Cut(place, "@")
			n, err := sys.Node(w.add(path, numa))
			w.must(err)
			nodes = append(nodes, n)
		}
		return nodes
	}
	return read(b.gpus), read(b.nics)
}

// summary is one line per device: its address, its partner's, the relation.
func summary(pairs []Pair) []string {
	var lines []string
	for _, p := range pairs {
		if p.Partner == nil {
			lines = append(lines, p.Device.Address.String()+" alone")
			continue
		}
		lines = append(lines, p.Device.Address.String()+" "+p.Partner.Address.String()+" "+p.Relation.String())
	}
	return lines
}

func TestPairs(t *testing.T) {
	dgx := func(root, nic, gpu, numa string) (string, string) {
		up := "pci0000:" + root + "/0000:" + root + ":01.0/0000:" + root + ":02.0"
		return up + "/0000:" + root + ":03.0/0000:" + root + ":04.0/0000:" + root + ":05.0/0000:" + gpu + ":00.0@" + numa,
			up + "/0000:" + root + ":06.0/0000:" + nic + ":00.0@" + numa
	}
	gpu0, nic0 := dgx("15", "18", "1b", "0")
	gpu1, nic1 := dgx("3d", "40", "43", "0")
	gpu4, nic4 := dgx("97", "9a", "9d", "1")
	storage := "pci0000:26/0000:26:01.0/0000:29:00.0@0"

	// Two GPUs and four NICs are PXB together; common bridges tell that two of
	// the NICs are on the first GPU's branch and two on the other's.
	shared := "pci0000:50/0000:50:01.0/0000:51:00.0"
	left, right := shared+"/0000:52:00.0/0000:53:00.0", shared+"/0000:52:01.0/0000:60:00.0"
	hgx := board{
		gpus: []string{left + "/0000:54:00.0/0000:55:00.0/0000:56:00.0/0000:57:00.0@0", right + "/0000:61:00.0/0000:62:00.0/0000:63:00.0/0000:64:00.0@0"},
		nics: []string{
			left + "/0000:54:01.0/0000:58:00.0@0", left + "/0000:54:02.0/0000:59:00.0@0",
			right + "/0000:61:01.0/0000:65:00.0@0", right + "/0000:61:02.0/0000:66:00.0@0",
		},
	}
	for _, tc := range []struct {
		name    string
		board   board
		pairing Pairing
		want    []string
		// why is what the first device's explanation must say.
		why string
	}{
		{
			name:    "DGX: each GPU has its NIC, storage ports stay alone",
			board:   board{gpus: []string{gpu0, gpu1, gpu4}, nics: []string{storage, nic0, nic1, nic4}},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:1b:00.0 0000:18:00.0 PXB", "0000:43:00.0 0000:40:00.0 PXB", "0000:9d:00.0 0000:9a:00.0 PXB"},
			why:     "PXB, with 2 common bridges",
		},
		{
			name:    "a DGX that lost a NIC falls back to one of the socket",
			board:   board{gpus: []string{gpu0, gpu1}, nics: []string{storage, nic1}},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:1b:00.0 0000:29:00.0 NODE", "0000:43:00.0 0000:40:00.0 PXB"},
		},
		{
			name:    "and to none where the configuration wants a common host bridge",
			board:   board{gpus: []string{gpu0, gpu1}, nics: []string{storage, nic1}},
			pairing: Pairing{Least: PHB},
			want:    []string{"0000:1b:00.0 alone", "0000:43:00.0 0000:40:00.0 PXB"},
			why:     "the nearest is NODE, and PHB is the least that counts",
		},
		{
			name:    "two GPUs and four NICs below one switch: common bridges decide",
			board:   hgx,
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:57:00.0 0000:58:00.0 PXB", "0000:64:00.0 0000:65:00.0 PXB"},
		},
		{
			name: "however their addresses are ordered",
			board: board{gpus: hgx.gpus, nics: []string{
				left + "/0000:54:01.0/0000:c0:00.0@0", left + "/0000:54:02.0/0000:c1:00.0@0",
				right + "/0000:61:01.0/0000:58:00.0@0", right + "/0000:61:02.0/0000:59:00.0@0",
			}},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:57:00.0 0000:c0:00.0 PXB", "0000:64:00.0 0000:58:00.0 PXB"},
		},
		{
			name:    "one NIC for two GPUs is shared",
			board:   board{gpus: hgx.gpus, nics: hgx.nics[:1]},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:57:00.0 0000:58:00.0 PXB", "0000:64:00.0 0000:58:00.0 PXB"},
			why:     "shared by 2 devices",
		},
		{
			name:    "unless it has one VF only",
			board:   board{gpus: hgx.gpus, nics: hgx.nics[:1]},
			pairing: Pairing{Least: NODE, Capacity: func(Address) int { return 1 }},
			want:    []string{"0000:57:00.0 0000:58:00.0 PXB", "0000:64:00.0 alone"},
		},
		{
			name: "GB200: no common root, NUMA decides",
			board: board{
				gpus: []string{"pci0008:00/0008:00:00.0/0008:01:00.0@0", "pci0009:00/0009:00:00.0/0009:01:00.0@0", "pci0018:00/0018:00:00.0/0018:01:00.0@1"},
				nics: []string{"pci0000:00/0000:00:00.0/0000:03:00.0@0", "pci0002:00/0002:00:00.0/0002:03:00.0@0", "pci0010:00/0010:00:00.0/0010:03:00.0@1"},
			},
			pairing: Pairing{Least: NODE},
			want:    []string{"0008:01:00.0 0000:03:00.0 NODE", "0009:01:00.0 0002:03:00.0 NODE", "0018:01:00.0 0010:03:00.0 NODE"},
			why:     "as near as 1 others: the PCI tree does not tell them apart",
		},
		{
			name: "a virtual machine with every device in a PCI domain of its own and no NUMA",
			board: board{
				gpus: []string{"pci0001:00/0001:00:00.0@-1", "pci0002:00/0002:00:00.0@-1"},
				nics: []string{"pci0003:00/0003:00:00.0@-1"},
			},
			pairing: Pairing{Least: NODE},
			want:    []string{"0001:00:00.0 alone", "0002:00:00.0 alone"},
			why:     "the machine does not tell what is near",
		},
		{
			name: "a flat virtual machine: the addresses decide, and it is said",
			board: board{
				gpus: []string{"pci0000:00/0000:00:05.0@-1", "pci0000:00/0000:00:06.0@-1"},
				nics: []string{"pci0000:00/0000:00:07.0@-1", "pci0000:00/0000:00:08.0@-1"},
			},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:00:05.0 0000:00:07.0 PHB", "0000:00:06.0 0000:00:08.0 PHB"},
			why:     "the address decided",
		},
		{
			name: "a socket split into NUMA nodes: the tree counts before NUMA",
			board: board{
				gpus: []string{gpu0, strings.Replace(gpu1, "@0", "@1", 1)},
				nics: []string{strings.Replace(nic0, "@0", "@1", 1), strings.Replace(nic1, "@0", "@2", 1)},
			},
			pairing: Pairing{Least: NODE},
			want:    []string{"0000:1b:00.0 0000:18:00.0 PXB", "0000:43:00.0 0000:40:00.0 PXB"},
		},
		{
			name:  "the configuration decides",
			board: board{gpus: []string{gpu0, gpu1, gpu4}, nics: []string{nic0, nic1, nic4}},
			pairing: Pairing{Least: NODE, Fixed: map[Address]Address{
				address(t, "0000:1b:00.0"): address(t, "0000:40:00.0"),
				address(t, "0000:9d:00.0"): {},
			}},
			want: []string{"0000:1b:00.0 0000:40:00.0 NODE", "0000:43:00.0 0000:18:00.0 NODE", "0000:9d:00.0 alone"},
			why:  "decided by the configuration",
		},
		{
			name:    "a partner that the configuration names and the machine lacks",
			board:   board{gpus: []string{gpu0}, nics: []string{nic0}},
			pairing: Pairing{Least: NODE, Fixed: map[Address]Address{address(t, "0000:1b:00.0"): address(t, "0000:99:00.0")}},
			want:    []string{"0000:1b:00.0 alone"},
			why:     "0000:99:00.0, which is not there",
		},
		{
			name:  "no NIC",
			board: board{gpus: []string{gpu0}},
			want:  []string{"0000:1b:00.0 alone"},
			why:   "there is no partner",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gpus, nics := tc.board.nodes(t)
			for range 20 { // whatever the order in which they are found
				rand.Shuffle(len(gpus), func(i, j int) { gpus[i], gpus[j] = gpus[j], gpus[i] })
				rand.Shuffle(len(nics), func(i, j int) { nics[i], nics[j] = nics[j], nics[i] })
				pairs := tc.pairing.Pairs(gpus, nics)
				if diff := cmp.Diff(tc.want, summary(pairs)); diff != "" {
					t.Fatalf("unexpected pairs (-want +got):\n%s", diff)
				}
				if !strings.Contains(pairs[0].Why, tc.why) {
					t.Fatalf("the reason %q does not say %q", pairs[0].Why, tc.why)
				}
			}
		})
	}
}

// A device that could go elsewhere as well gives way to one that cannot.
func TestPairsGiveWay(t *testing.T) {
	up := "pci0000:10/0000:10:01.0/0000:11:00.0"
	gpus, nics := board{
		// The first GPU has two NICs at the same distance, the second is
		// below the switch of the first of them only as far as NUMA tells.
		gpus: []string{up + "/0000:12:00.0/0000:13:00.0@0", "pci0000:20/0000:20:01.0/0000:21:00.0@0"},
		nics: []string{up + "/0000:12:01.0/0000:14:00.0@0", up + "/0000:12:02.0/0000:15:00.0@1"},
	}.nodes(t)
	want := []string{"0000:13:00.0 0000:15:00.0 PIX", "0000:21:00.0 0000:14:00.0 NODE"}
	if diff := cmp.Diff(want, summary(Pairing{Least: NODE}.Pairs(gpus, nics))); diff != "" {
		t.Errorf("unexpected pairs (-want +got):\n%s", diff)
	}
}
