package topology

// Relation tells how near two devices are, in the words of "nvidia-smi topo
// -m". A greater value is nearer, so relations can be compared. The zero value
// is [Unknown].
type Relation int

const (
	// Unknown: the devices have different host bridges, and the kernel does
	// not tell the NUMA node of both.
	Unknown Relation = iota
	// SYS: across NUMA nodes.
	SYS
	// NODE: different host bridges of one NUMA node.
	NODE
	// PHB: through the host bridge that both are under.
	PHB
	// PXB: through several PCIe switches, without the host bridge.
	PXB
	// PIX: through one PCIe switch at most.
	PIX
)

// String returns the word that nvidia-smi prints, or "unknown".
func (r Relation) String() string {
	switch r {
	case SYS:
		return "SYS"
	case NODE:
		return "NODE"
	case PHB:
		return "PHB"
	case PXB:
		return "PXB"
	case PIX:
		return "PIX"
	default:
		return "unknown"
	}
}

// Relate tells how near two devices are, from the tree alone.
func Relate(a, b Node) Relation {
	if a.Root == "" || a.Root != b.Root {
		return relateByNUMA(a, b)
	}
	common := CommonBridges(a, b)
	if common == 0 && !sameSlot(a, b) {
		return PHB
	}
	// Below the last common bridge, each side has one bridge of its own when
	// both hang on ports of the same switch. More means another switch.
	if len(a.Bridges)-common <= 1 && len(b.Bridges)-common <= 1 {
		return PIX
	}
	return PXB
}

// CommonBridges returns how many bridges the paths to two devices share, from
// the host bridge down. Of two devices that have the same [Relation] to a
// third, the one that shares more bridges with it is nearer.
func CommonBridges(a, b Node) int {
	if a.Root == "" || a.Root != b.Root {
		return 0
	}
	n := 0
	for n < len(a.Bridges) && n < len(b.Bridges) && a.Bridges[n] == b.Bridges[n] {
		n++
	}
	return n
}

func relateByNUMA(a, b Node) Relation {
	switch {
	case a.NUMA == nil || b.NUMA == nil:
		return Unknown
	case *a.NUMA == *b.NUMA:
		return NODE
	default:
		return SYS
	}
}

// sameSlot tells whether two functions are of one physical device.
func sameSlot(a, b Node) bool {
	a.Address.Function, b.Address.Function = 0, 0
	return a.Address == b.Address
}
