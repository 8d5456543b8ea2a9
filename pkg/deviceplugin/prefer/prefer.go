package prefer

import (
	"cmp"
	"slices"
)

// NoNUMA is the node of devices of which the kernel does not know it.
const NoNUMA = -1

// Device is a device that kubelet may give.
type Device struct {
	ID string
	// NUMA is the number of the device's NUMA node, or [NoNUMA].
	NUMA int
	// Parent is what the device shares its way with others by, such as the port of
	// a VF. It is empty for devices that share nothing.
	Parent string
}

// Choose returns the IDs of size devices out of those available, those that must
// be among them included. The devices are on as few NUMA nodes as can be; of
// several nodes that suit it takes the one with the least to spare, so that others
// stay whole. On a node it takes devices of many parents rather than many of one.
// The order of available decides what is left open, so that the same question has
// the same answer.
func Choose(available []Device, must []string, size int) []string {
	c := choice{free: map[int][]Device{}, onNode: map[int]int{}, ofParent: map[string]int{}}
	for _, d := range available {
		if slices.Contains(must, d.ID) {
			c.take(d)
		} else {
			c.free[d.NUMA] = append(c.free[d.NUMA], d)
		}
	}
	for len(c.taken) < size {
		node, ok := c.node(size - len(c.taken))
		if !ok {
			break // kubelet asks for no more than there is
		}
		for len(c.taken) < size && len(c.free[node]) > 0 {
			at := c.next(c.free[node])
			d := c.free[node][at]
			c.free[node] = slices.Delete(c.free[node], at, at+1)
			c.take(d)
		}
		delete(c.free, node)
	}
	return c.taken
}

// choice is what was chosen so far.
type choice struct {
	taken []string
	// free are those that are left, by NUMA node, in their order.
	free map[int][]Device
	// onNode and ofParent count those that were taken.
	onNode   map[int]int
	ofParent map[string]int
}

func (c *choice) take(d Device) {
	c.taken = append(c.taken, d.ID)
	c.onNode[d.NUMA]++
	if d.Parent != "" {
		c.ofParent[d.Parent]++
	}
}

// node returns the NUMA node to take the next devices from, if there is one.
func (c *choice) node(need int) (int, bool) {
	var nodes []int
	for node := range c.free {
		nodes = append(nodes, node)
	}
	if len(nodes) == 0 {
		return 0, false
	}
	return slices.MinFunc(nodes, func(a, b int) int {
		enoughA, enoughB := len(c.free[a]) >= need, len(c.free[b]) >= need
		spare := cmp.Compare(len(c.free[a]), len(c.free[b]))
		if !enoughA || !enoughB {
			spare = -spare // none is enough, or one is: the larger first
		}
		return cmp.Or(cmp.Compare(c.onNode[b], c.onNode[a]), known(a, b), spare, cmp.Compare(a, b))
	}), true
}

// known puts devices whose node is not known behind the others.
func known(a, b int) int {
	switch {
	case a == NoNUMA && b != NoNUMA:
		return 1
	case b == NoNUMA && a != NoNUMA:
		return -1
	}
	return 0
}

// next returns which of the devices to take: one whose parent was taken from
// least, and of these one whose parent has the most left.
func (c *choice) next(devices []Device) int {
	left := map[string]int{}
	for _, d := range devices {
		left[d.Parent]++
	}
	best := 0
	for n, d := range devices {
		former := devices[best]
		if cmp.Or(cmp.Compare(c.ofParent[d.Parent], c.ofParent[former.Parent]), cmp.Compare(left[former.Parent], left[d.Parent])) < 0 {
			best = n
		}
	}
	return best
}
