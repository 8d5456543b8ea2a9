package fleet

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Shape is all that machines which are built alike have in common. Pools with
// equal content have the same *Shape, so that what is found out about one holds
// for all. It never changes.
type Shape struct {
	// Devices are those of the pool, in the order in which kube-scheduler tries
	// them.
	Devices []Device
	// Counters are those of all counter sets of the pool.
	Counters []Counter

	id     uint64
	key    string
	places map[string]int
	sets   []resourceapi.CounterSet
	refs   int
}

// Counter is something of which the devices of a pool share an amount.
type Counter struct {
	Set, Name string
	// Amount is in thousandths.
	Amount int64
}

// Device is a device as a pool has it.
type Device struct {
	// Name is that in the pool.
	Name string
	// Kind is empty for a device that does not tell it.
	Kind device.Kind
	// NUMA is the device's NUMA node, or -1 where that is not known.
	NUMA int64
	// Root is the device's PCIe root complex, such as "pci0000:15", or empty.
	Root string
	// Alignment is how near the parts of a composite are, such as "PIX". It is
	// empty for others.
	Alignment string
	// Managed tells that this controller gives the device to claims, not
	// kube-scheduler, and that it does so now.
	Managed bool
	// Taints are those that a claim must tolerate. The one that marks managed
	// devices is not among them, and times are left out.
	Taints []resourceapi.DeviceTaint
	// Uses are what the device takes of [Shape.Counters].
	Uses []Use
	// Several tells that several claims may have a part of the device's
	// capacity each.
	Several bool

	api resourceapi.Device
}

// Use is what a device takes of a counter.
type Use struct {
	// Counter is the place in [Shape.Counters].
	Counter int
	// Amount is in thousandths.
	Amount int64
}

// Place returns the place of the device of that name in Devices.
func (s *Shape) Place(name string) (int, bool) {
	n, ok := s.places[name]
	return n, ok
}

// CounterSets are those of the pool, as the API has them. They must not be
// changed.
func (s *Shape) CounterSets() []resourceapi.CounterSet { return s.sets }

// Left returns how much is left of each counter while the devices are taken. It
// is negative where more is taken than there is.
func (s *Shape) Left(taken Set) []int64 {
	left := make([]int64, len(s.Counters))
	for i, c := range s.Counters {
		left[i] = c.Amount
	}
	for d := range taken.All() {
		for _, use := range s.Devices[d].Uses {
			left[use.Counter] -= use.Amount
		}
	}
	return left
}

// Fits tells whether enough is left of the counters that the device takes.
func (d *Device) Fits(left []int64) bool {
	for _, use := range d.Uses {
		if left[use.Counter] < use.Amount {
			return false
		}
	}
	return true
}

// free are the devices that nobody has, and of whose counters enough is left.
func (s *Shape) free(taken Set) Set {
	left := s.Left(taken)
	free := MakeSet(len(s.Devices))
	for d := range s.Devices {
		if !taken.Has(d) && s.Devices[d].Fits(left) {
			free.Add(d)
		}
	}
	return free
}

// part is the content of one slice, shared by all slices with the same.
type part struct {
	id      uint64
	key     [32]byte
	devices []Device
	// consumes has an entry for each device.
	consumes [][]resourceapi.DeviceCounterConsumption
	sets     []resourceapi.CounterSet
	refs     int
}

// newShape joins the parts of a pool, in the order of their slices. It fails
// where the pool contradicts itself; such a pool is not used.
func newShape(parts []*part) (*Shape, error) {
	s := &Shape{places: map[string]int{}}
	counters := map[[2]string]int{}
	for _, p := range parts {
		for _, set := range p.sets {
			if slices.ContainsFunc(s.sets, func(other resourceapi.CounterSet) bool { return other.Name == set.Name }) {
				return nil, fmt.Errorf("counter set %s is there twice", set.Name)
			}
			s.sets = append(s.sets, set)
			for name, c := range set.Counters {
				counters[[2]string{set.Name, name}] = len(s.Counters)
				s.Counters = append(s.Counters, Counter{Set: set.Name, Name: name, Amount: thousandths(c.Value)})
			}
		}
	}
	for _, p := range parts {
		for i, d := range p.devices {
			if _, twice := s.places[d.Name]; twice {
				return nil, fmt.Errorf("device %s is there twice", d.Name)
			}
			var err error
			if d.Uses, err = usesOf(d.Name, p.consumes[i], counters); err != nil {
				return nil, err
			}
			s.places[d.Name] = len(s.Devices)
			s.Devices = append(s.Devices, d)
		}
	}
	return s, nil
}

func usesOf(device string, consumes []resourceapi.DeviceCounterConsumption, counters map[[2]string]int) ([]Use, error) {
	var uses []Use
	for _, consumed := range consumes {
		for name, c := range consumed.Counters {
			n, ok := counters[[2]string{consumed.CounterSet, name}]
			if !ok {
				return nil, fmt.Errorf("device %s takes counter %s of set %s, which is not there", device, name, consumed.CounterSet)
			}
			uses = append(uses, Use{Counter: n, Amount: thousandths(c.Value)})
		}
	}
	return uses, nil
}

func thousandths(q resource.Quantity) int64 { return q.MilliValue() }

// ID is the same for pools of one shape, and for no others as long as the shape
// is in use.
func (s *Shape) ID() uint64 { return s.id }
