package fit

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// board is how a machine is built, with the devices of all its pools in one row.
// It is the same for all machines whose pools have the same shapes.
type board struct {
	devices []*fleet.Device
	// first is where the devices of each pool begin in the row.
	first []int
	// uses are what devices take of the counters of all pools.
	uses   [][]fleet.Use
	amount []int64
	// spot and numa are where devices sit, as places in spots and numas.
	spot, numa []int
	spots      []spot
	// numas has the devices of each NUMA node, and one entry for those of which
	// it is not known.
	numas   []fleet.Set
	managed fleet.Set
	// misfit is how far the parts of a composite are apart; 0 is nearest, and
	// what all others have.
	misfit []int
}

// spot is a group of devices that are under one PCIe root or share something,
// such as a GPU with the VFs beside it.
type spot struct {
	numa    int
	devices []int
}

func newBoard(pools []*fleet.Pool) *board {
	b := &board{}
	for _, p := range pools {
		b.first = append(b.first, len(b.devices))
		counters := len(b.amount)
		for _, c := range p.Shape.Counters {
			b.amount = append(b.amount, c.Amount)
		}
		for n := range p.Shape.Devices {
			d := &p.Shape.Devices[n]
			b.devices = append(b.devices, d)
			uses := slices.Clone(d.Uses)
			for i := range uses {
				uses[i].Counter += counters
			}
			b.uses = append(b.uses, uses)
			b.misfit = append(b.misfit, misfit(d))
		}
	}
	b.managed = fleet.MakeSet(len(b.devices))
	for n, d := range b.devices {
		if d.Managed {
			b.managed.Add(n)
		}
	}
	b.sortNUMA()
	b.sortSpots(pools)
	return b
}

// misfit is how far the parts of a composite are apart.
func misfit(d *fleet.Device) int {
	if d.Kind != device.KindGPUVF {
		return 0
	}
	for r := topology.PIX; r > topology.Unknown; r-- {
		if r.String() == d.Alignment {
			return int(topology.PIX - r)
		}
	}
	return int(topology.PIX)
}

func (b *board) sortNUMA() {
	var known []int64
	for _, d := range b.devices {
		if !slices.Contains(known, d.NUMA) {
			known = append(known, d.NUMA)
		}
	}
	slices.Sort(known)
	for range known {
		b.numas = append(b.numas, fleet.MakeSet(len(b.devices)))
	}
	for n, d := range b.devices {
		at := slices.Index(known, d.NUMA)
		b.numa = append(b.numa, at)
		b.numas[at].Add(n)
	}
}

// sortSpots puts devices together that have a PCIe root or a counter in common.
func (b *board) sortSpots(pools []*fleet.Pool) {
	group := make([]int, len(b.devices))
	byRoot, bySet := map[string]int{}, map[[2]string]int{}
	for n := range b.devices {
		group[n] = n
	}
	find := func(n int) int {
		for group[n] != n {
			n = group[n]
		}
		return n
	}
	join := func(n, other int) {
		low, high := min(find(n), find(other)), max(find(n), find(other))
		group[high] = low
	}
	for i, p := range pools {
		for n := range p.Shape.Devices {
			d, row := &p.Shape.Devices[n], b.first[i]+n
			if d.Root != "" {
				if other, ok := byRoot[d.Root]; ok {
					join(row, other)
				}
				byRoot[d.Root] = row
			}
			for _, use := range d.Uses {
				set := [2]string{p.Name, p.Shape.Counters[use.Counter].Set}
				if other, ok := bySet[set]; ok {
					join(row, other)
				}
				bySet[set] = row
			}
		}
	}
	b.spot = make([]int, len(b.devices))
	at := map[int]int{}
	for n := range b.devices {
		root := find(n)
		if _, ok := at[root]; !ok {
			at[root] = len(b.spots)
			b.spots = append(b.spots, spot{numa: b.numa[n]})
		}
		b.spot[n] = at[root]
		b.spots[at[root]].devices = append(b.spots[at[root]].devices, n)
	}
}

// state is a machine of which some devices are taken.
type state struct {
	*board
	node *fleet.Node
	// taken are the devices that claims have, also those that are only planned.
	taken fleet.Set
	// free are the devices that nobody has and of whose counters enough is left.
	free fleet.Set
	left []int64
	// key is the same for states in which the same can be done.
	key string
}

// newState looks at a node, on which some more than the fleet knows may be
// taken.
func newState(b *board, n *fleet.Node, more fleet.Set) *state {
	s := &state{board: b, node: n, taken: fleet.MakeSet(len(b.devices))}
	used := fleet.MakeSet(len(b.devices))
	var shared []int
	key := []byte(boardKey(n.Pools))
	for i, p := range n.Pools {
		for d := range p.Taken.All() {
			s.taken.Add(b.first[i] + d)
		}
		for _, share := range p.Shares {
			shared = append(shared, b.first[i]+share.Device)
			used.Add(b.first[i] + share.Device)
		}
	}
	s.taken.Union(more)
	used.Union(s.taken)
	s.left = slices.Clone(b.amount)
	for d := range used.All() {
		b.take(s.left, d)
	}
	s.free = fleet.MakeSet(len(b.devices))
	for d := range b.devices {
		if !used.Has(d) && b.fits(s.left, d) {
			s.free.Add(d)
		}
	}
	for _, word := range s.taken {
		key = binary.BigEndian.AppendUint64(key, word)
	}
	if len(shared) > 0 { // like no other
		key = append(key, n.Key()...)
	}
	for _, d := range shared {
		s.free.Add(d) // how much is left of it is for the allocator to tell
	}
	s.key = string(key)
	return s
}

// boardKey is the same for pools that make the same board.
func boardKey(pools []*fleet.Pool) string {
	var key []byte
	for _, p := range pools {
		key = binary.AppendUvarint(key, p.Shape.ID())
	}
	return string(append(key, '/'))
}

func (b *board) take(left []int64, d int) {
	for _, use := range b.uses[d] {
		left[use.Counter] -= use.Amount
	}
}

func (b *board) fits(left []int64, d int) bool {
	for _, use := range b.uses[d] {
		if left[use.Counter] < use.Amount {
			return false
		}
	}
	return true
}

// split gives each pool its part of a row of devices.
func (b *board) split(devices []int) [][]int {
	parts := make([][]int, len(b.first))
	for _, d := range devices {
		pool := b.poolOf(d)
		parts[pool] = append(parts[pool], d-b.first[pool])
	}
	return parts
}

func (b *board) splitSet(devices fleet.Set, pools []*fleet.Pool) []fleet.Set {
	parts := make([]fleet.Set, len(pools))
	for i, p := range pools {
		parts[i] = fleet.MakeSet(len(p.Shape.Devices))
	}
	for d := range devices.All() {
		pool := b.poolOf(d)
		parts[pool].Add(d - b.first[pool])
	}
	return parts
}

func (b *board) poolOf(d int) int {
	at, ok := slices.BinarySearchFunc(b.first, d, cmp.Compare[int])
	if !ok {
		at--
	}
	return at
}
