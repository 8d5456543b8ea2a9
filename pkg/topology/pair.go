package topology

import (
	"cmp"
	"fmt"
	"slices"
)

// Pair joins a device with the partner beside it, or says why it has none.
type Pair struct {
	Device Node
	// Partner is nil for a device that has none.
	Partner *Node
	// Relation is how near the two are. It is [Unknown] without a partner.
	Relation Relation
	// Why tells a person how the pair came about.
	Why string
}

// Pairing says how devices find their partners.
type Pairing struct {
	// Least is the least relation that makes two devices a pair. Farther ones
	// stay alone.
	Least Relation
	// Capacity tells how many devices may share a partner. Nil means that any
	// number may.
	Capacity func(partner Address) int
	// Fixed are the pairs that a person has decided. A device with the zero
	// Address as its partner stays alone.
	Fixed map[Address]Address
}

// nearness ranks partners of one device: first by relation, then by the number
// of bridges that both paths share. On boards where everything is below one
// host bridge, only the second tells neighbours from strangers.
type nearness struct {
	relation Relation
	common   int
}

func (n nearness) compare(other nearness) int {
	return cmp.Or(cmp.Compare(n.relation, other.relation), cmp.Compare(n.common, other.common))
}

// Pairs finds a partner for each device, in the order of the devices'
// addresses. The nearest find each other first, and as long as there are
// partners that nobody has, each gets one of its own; only then are partners
// shared. Among equals the lower address decides, so the same machine has the
// same pairs after every boot, in whatever order its drivers found things.
func (p Pairing) Pairs(devices, partners []Node) []Pair {
	byAddress := func(a, b Node) int { return a.Address.Compare(b.Address) }
	devices, partners = slices.SortedFunc(slices.Values(devices), byAddress), slices.SortedFunc(slices.Values(partners), byAddress)
	m := newMatching(p, devices, partners)
	fixed := m.fix()
	for share := 1; m.open(share); share++ {
		for _, level := range m.levels() {
			m.extend(level, share)
		}
	}
	pairs := make([]Pair, len(devices))
	for d := range devices {
		pairs[d] = m.pair(d, fixed[d])
	}
	return pairs
}

const none = -1

// matching is the work on one set of pairs. Devices and partners are known by
// their indexes.
type matching struct {
	pairing  Pairing
	devices  []Node
	partners []Node
	near     [][]nearness
	// partner is that of each device, or none; closed are devices that get no
	// other.
	partner []int
	closed  []bool
	load    []int
}

func newMatching(p Pairing, devices, partners []Node) *matching {
	m := &matching{
		pairing: p, devices: devices, partners: partners,
		near:    make([][]nearness, len(devices)),
		partner: make([]int, len(devices)),
		closed:  make([]bool, len(devices)),
		load:    make([]int, len(partners)),
	}
	for d, device := range devices {
		m.partner[d] = none
		m.near[d] = make([]nearness, len(partners))
		for n, partner := range partners {
			m.near[d][n] = nearness{relation: Relate(device, partner), common: CommonBridges(device, partner)}
		}
	}
	return m
}

// fix makes the pairs that a person has decided, and returns for each device
// whether it is one of those.
func (m *matching) fix() []bool {
	fixed := make([]bool, len(m.devices))
	for d, device := range m.devices {
		want, ok := m.pairing.Fixed[device.Address]
		if !ok {
			continue
		}
		fixed[d], m.closed[d] = true, true
		for n, partner := range m.partners {
			if partner.Address == want {
				m.partner[d] = n
				m.load[n]++
			}
		}
	}
	return fixed
}

// limit is how many devices may have a partner while partners are shared by
// up to share.
func (m *matching) limit(partner, share int) int {
	if m.pairing.Capacity == nil {
		return share
	}
	return min(share, m.pairing.Capacity(m.partners[partner].Address))
}

// open tells whether another round, with partners shared by up to share, can
// bring any device a partner.
func (m *matching) open(share int) bool {
	if share > len(m.devices) {
		return false
	}
	return slices.Contains(m.partner, none)
}

// levels lists the distances at which there are pairs to be made, the nearest
// first.
func (m *matching) levels() []nearness {
	var all []nearness
	for d := range m.devices {
		for _, near := range m.near[d] {
			if near.relation >= m.pairing.Least && near.relation != Unknown {
				all = append(all, near)
			}
		}
	}
	slices.SortFunc(all, func(a, b nearness) int { return b.compare(a) })
	return slices.Compact(all)
}

// extend gives partners at one distance to devices that have none. A device
// that has one may be moved to another that is as near, if that helps.
func (m *matching) extend(level nearness, share int) {
	for d := range m.devices {
		if m.partner[d] == none && !m.closed[d] {
			m.augment(d, level, share, make([]bool, len(m.partners)))
		}
	}
}

// augment finds a partner for a device at one distance: one that has room, or
// else one whose device can move to another that is as near to it.
func (m *matching) augment(d int, level nearness, share int, seen []bool) bool {
	for n := range m.partners {
		if !seen[n] && m.near[d][n] == level && m.load[n] < m.limit(n, share) {
			m.assign(d, n)
			return true
		}
	}
	for n := range m.partners {
		if seen[n] || m.near[d][n] != level || m.limit(n, share) == 0 {
			continue
		}
		seen[n] = true
		for other := range m.devices {
			if m.partner[other] == n && !m.closed[other] && m.augment(other, m.near[other][n], share, seen) {
				m.assign(d, n)
				return true
			}
		}
	}
	return false
}

func (m *matching) assign(d, n int) {
	if m.partner[d] != none {
		m.load[m.partner[d]]--
	}
	m.partner[d] = n
	m.load[n]++
}

func (m *matching) pair(d int, fixed bool) Pair {
	pair := Pair{Device: m.devices[d]}
	n := m.partner[d]
	if n == none {
		pair.Why = m.whyAlone(d, fixed)
		return pair
	}
	near := m.near[d][n]
	pair.Partner, pair.Relation = &m.partners[n], near.relation
	switch {
	case fixed:
		pair.Why = fmt.Sprintf("decided by the configuration; they are %s", near.relation)
	case m.ties(d, near) > 1 && near.relation <= PHB:
		pair.Why = fmt.Sprintf("%s, as near as %d others: the PCI tree does not tell them apart, the address decided", near.relation, m.ties(d, near)-1)
	case near.compare(m.best(d)) < 0:
		pair.Why = fmt.Sprintf("%s: nearer ones went to other devices", near.relation)
	default:
		pair.Why = fmt.Sprintf("%s, with %d common bridges", near.relation, near.common)
	}
	if m.load[n] > 1 {
		pair.Why += fmt.Sprintf("; shared by %d devices, there are too few partners", m.load[n])
	}
	return pair
}

func (m *matching) whyAlone(d int, fixed bool) string {
	switch {
	case fixed:
		want := m.pairing.Fixed[m.devices[d].Address]
		if want == (Address{}) {
			return "left alone by the configuration"
		}
		return fmt.Sprintf("the configuration decided for %s, which is not there", want)
	case len(m.partners) == 0:
		return "there is no partner"
	case m.best(d).relation == Unknown:
		return "the machine does not tell what is near: no common host bridge, no NUMA node"
	case m.best(d).relation < m.pairing.Least:
		return fmt.Sprintf("the nearest is %s, and %s is the least that counts", m.best(d).relation, m.pairing.Least)
	}
	return "all that are near enough have as many devices as they can take"
}

func (m *matching) best(d int) nearness {
	return slices.MaxFunc(m.near[d], nearness.compare)
}

func (m *matching) ties(d int, near nearness) int {
	count := 0
	for _, n := range m.near[d] {
		if n == near {
			count++
		}
	}
	return count
}
