package pairs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Pair is a GPU and the VF that it is joined with, or why there is none.
type Pair struct {
	// Name is that of the composite device.
	Name string
	// GPU and VF are the names of the single devices. VF is empty for a GPU
	// that is alone. GPU is an address where the configuration names a GPU that
	// is not there.
	GPU, VF string
	// NIC is the VF's PF.
	NIC topology.Address
	// Relation is how near GPU and NIC are.
	Relation topology.Relation
	// Why tells a person how the pair came about, or why there is none.
	Why string

	// set is the GPU's counter set, and held tells that a claim has the
	// composite, be it with another VF that is gone.
	set  string
	held bool
}

// String tells what is joined and why.
func (p Pair) String() string {
	if p.VF == "" {
		return fmt.Sprintf("%s has no VF beside it: %s", p.GPU, p.Why)
	}
	return fmt.Sprintf("%s and %s of NIC %s: %s", p.GPU, p.VF, p.NIC, p.Why)
}

// machine is what can be joined.
type machine struct {
	gpus []part
	// vfs are those of each PF, in the order in which they are to be paired.
	vfs map[topology.Address][]part
	// nodes are where PFs and GPUs sit.
	nodes map[topology.Address]topology.Node
}

// part is a device that can be a part of a composite.
type part struct {
	device.Device
	address topology.Address
	parent  topology.Address
}

// find returns a pair, or none, for each GPU that can be counted.
func (o *Options) find(found Found) []Pair {
	if o == nil {
		return nil
	}
	m := o.machine(found.Devices)
	if len(m.vfs) == 0 {
		return nil
	}
	pairing := o.Pairing
	pairing.Capacity = func(nic topology.Address) int { return len(m.vfs[nic]) }
	var gpus, nics []topology.Node
	for _, g := range m.gpus {
		gpus = append(gpus, m.nodes[g.address])
	}
	for nic := range m.vfs {
		nics = append(nics, m.nodes[nic])
	}
	beside := map[topology.Address]topology.Pair{}
	for _, p := range pairing.Pairs(gpus, nics) {
		beside[p.Device.Address] = p
	}
	c := chooser{machine: m, found: found, taken: map[string]bool{}}
	pairs := make([]Pair, len(m.gpus))
	for n, g := range m.gpus { // first of all those that claims have
		pairs[n] = Pair{Name: compositeName(g.Name), GPU: g.Name, Why: beside[g.address].Why, set: g.Consumes[0].CounterSet}
		c.keepHeld(&pairs[n], g, beside[g.address])
	}
	for n, g := range m.gpus {
		if p := beside[g.address]; pairs[n].VF == "" && p.Partner != nil {
			pairs[n].NIC, pairs[n].Relation = p.Partner.Address, p.Relation
			c.choose(&pairs[n])
		}
		if nic := o.Pairing.Fixed[g.address]; pairs[n].VF == "" && nic != (topology.Address{}) && len(m.vfs[nic]) == 0 {
			pairs[n].Why = fmt.Sprintf("the configuration decided for %s, which is no PF with VFs that are served; such are %s", nic, m.nics())
		}
	}
	return slices.Concat(pairs, o.strangers(m.gpus))
}

// strangers has an entry for each address that the configuration takes for that
// of a GPU, so that whoever has mistyped one finds out.
func (o *Options) strangers(gpus []part) []Pair {
	var strangers []Pair
	for _, address := range slices.SortedFunc(maps.Keys(o.Pairing.Fixed), topology.Address.Compare) {
		if len(gpus) == 0 || slices.ContainsFunc(gpus, func(g part) bool { return g.address == address }) {
			continue
		}
		strangers = append(strangers, Pair{
			Name: compositeName(address.String()), GPU: address.String(), Why: "the configuration names it, and no GPU that is served has that address",
		})
	}
	return strangers
}

// nics lists the PFs.
func (m machine) nics() string {
	var all []string
	for _, nic := range slices.SortedFunc(maps.Keys(m.vfs), topology.Address.Compare) {
		all = append(all, nic.String())
	}
	return strings.Join(all, ", ")
}

func (o *Options) machine(devices []device.Device) machine {
	m := machine{vfs: map[topology.Address][]part{}, nodes: map[topology.Address]topology.Node{}}
	for _, d := range devices {
		if d.Place == nil {
			continue
		}
		address, err := topology.ParseAddress(d.Place.PCI)
		if err != nil {
			continue // it sits nowhere that could be beside anything
		}
		p := part{Device: d, address: address}
		switch {
		case d.Kind == device.KindGPU && len(d.Consumes) > 0:
			m.gpus = append(m.gpus, p)
			m.nodes[address] = o.node(address)
		case d.Kind == device.KindVF:
			if p.parent, err = topology.ParseAddress(d.Place.Parent); err != nil {
				continue
			}
			m.vfs[p.parent] = append(m.vfs[p.parent], p)
			m.nodes[p.parent] = o.node(p.parent)
		}
	}
	for _, vfs := range m.vfs {
		// The scheduler gives out single VFs from the front. Those at the back
		// are least likely to be on their way to a pod at this moment.
		slices.SortStableFunc(vfs, func(a, b part) int { return cmp.Compare(b.Place.Index, a.Place.Index) })
	}
	return m
}

// node is where a function sits. One that is just vanishing sits nowhere.
func (o *Options) node(address topology.Address) topology.Node {
	node, err := o.Sysfs.Node(address)
	if err != nil {
		return topology.Node{Address: address}
	}
	return node
}

// chooser finds the VF of a pair.
type chooser struct {
	machine
	found Found
	// taken are the names of the VFs that are part of a pair.
	taken map[string]bool
}

// keepHeld leaves a GPU its VF as long as a claim has both together, whatever
// has changed since.
func (c *chooser) keepHeld(p *Pair, gpu part, beside topology.Pair) {
	holder, ok := c.holder(gpu.Device)
	if !ok || holder.Device == gpu.Name {
		return
	}
	p.held = holder.Device == p.Name
	for nic, vfs := range c.vfs {
		for _, vf := range vfs {
			if other, ok := c.holder(vf.Device); !ok || other != holder {
				continue
			}
			p.NIC, p.Relation = nic, topology.Relate(c.nodes[gpu.address], c.nodes[nic])
			if beside.Partner == nil || beside.Partner.Address != nic {
				p.Why = fmt.Sprintf("%s, for as long as a claim has both", p.Relation)
			}
			c.take(p, vf)
			return
		}
	}
}

// choose takes a VF of the pair's NIC: the one of the last time, unless it has
// a problem and another, that nobody has, has none.
func (c *chooser) choose(p *Pair) {
	var left []part
	for _, vf := range c.vfs[p.NIC] {
		if !c.taken[vf.Name] {
			left = append(left, vf)
		}
	}
	if len(left) == 0 {
		p.NIC, p.Relation, p.Why = topology.Address{}, topology.Unknown, "no VF is left of the NIC beside it"
		return
	}
	healthy := func(vf part) bool { return len(vf.Problems) == 0 }
	free := func(vf part) bool {
		_, held := c.holder(vf.Device)
		return !held
	}
	former := slices.IndexFunc(left, func(vf part) bool { return c.was(p.Name, vf.Name) })
	best := slices.IndexFunc(left, func(vf part) bool { return healthy(vf) && free(vf) })
	switch {
	case former >= 0 && (healthy(left[former]) || !free(left[former]) || best < 0):
		best = former
	case former < 0: // which one must not depend on who uses what
		best = slices.IndexFunc(left, healthy)
	}
	c.take(p, left[max(best, 0)])
}

func (c *chooser) take(p *Pair, vf part) {
	p.VF = vf.Name
	c.taken[vf.Name] = true
}

func (c *chooser) was(pair, vf string) bool {
	return slices.ContainsFunc(c.found.Before, func(p Pair) bool { return p.Name == pair && p.VF == vf })
}

func (c *chooser) holder(d device.Device) (Holder, bool) {
	for _, thing := range d.Occupies {
		if h, ok := c.found.Held[thing]; ok {
			return h, true
		}
	}
	return Holder{}, false
}
