package pairs

import (
	"maps"
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Found is what is known when devices are joined.
type Found struct {
	// Devices and Counters are those of all families, in the families' order.
	Devices  []device.Device
	Counters []resourceapi.CounterSet
	// Held are the physical things that claims have, by their names in
	// [device.Device.Occupies].
	Held map[string]Holder
	// Before are the pairs of the last time.
	Before []Pair
}

// Holder is the claim that has a thing, and the device as a part of which it
// was given.
type Holder struct {
	Claim  device.Claim
	Device string
}

// Joined are the devices of a pool.
type Joined struct {
	// Devices are in the order in which they should be allocated.
	Devices []Device
	// Counters are the sets that Devices consume. There are none where no two
	// devices share anything.
	Counters []resourceapi.CounterSet
	// Pairs has one entry for each GPU that could have a partner, also for
	// those that have none, and for those that only the configuration knows.
	Pairs []Pair
}

// Device is a device of the pool.
type Device struct {
	device.Device
	// Parts are the names of the single devices that a composite is made of.
	// They are there, and empty for a single device.
	Parts []string
	// Held tells that a claim has the composite.
	Held bool
}

// Join returns the devices with the composites among them. Nil options make
// none.
//
// The scheduler takes the first device that fits. So of each kind, what belongs
// to no pair comes first, and pairs stay whole as long as there is anything else.
// A composite stands right behind its GPU: the scheduler asks a request's
// expressions about every device before the one that it takes, on every node,
// and there may be more than a hundred VFs.
func (o *Options) Join(found Found) Joined {
	pairs := o.find(found)
	byGPU, byVF := map[string]*Pair{}, map[string]*Pair{}
	for n := range pairs {
		if p := &pairs[n]; p.VF != "" {
			byGPU[p.GPU], byVF[p.VF] = p, p
		}
	}
	var freeGPUs, gpus, others, freeVFs, vfs []Device
	for _, d := range found.Devices {
		gpu, vf := byGPU[d.Name], byVF[d.Name]
		switch {
		case gpu != nil:
			gpus = append(gpus, Device{Device: d}, composite(d, deviceNamed(found.Devices, gpu.VF), gpu))
		case vf != nil:
			d.Consumes = []resourceapi.DeviceCounterConsumption{consumption(vf.set, nil)}
			vfs = append(vfs, Device{Device: d})
		case d.Kind == device.KindGPU:
			freeGPUs = append(freeGPUs, Device{Device: d})
		case d.Kind == device.KindVF:
			freeVFs = append(freeVFs, Device{Device: d})
		default:
			others = append(others, Device{Device: d})
		}
	}
	joined := Joined{Pairs: pairs, Devices: slices.Concat(freeGPUs, gpus, others, freeVFs, vfs)}
	joined.withholdLost(found.Held)
	joined.addCounters(found.Counters, pairs)
	return joined
}

func deviceNamed(devices []device.Device, name string) device.Device {
	n := slices.IndexFunc(devices, func(d device.Device) bool { return d.Name == name })
	return devices[n]
}

// ReasonPartHeld is the problem of a device that a claim has as a part of a
// composite that is not there now. The scheduler does not know of the part.
const ReasonPartHeld = "PartHeld"

// withholdLost gives a problem to what nobody else may be given though no
// device that is published tells so.
func (j *Joined) withholdLost(held map[string]Holder) {
	made := map[string][]string{}
	for _, d := range j.Devices {
		made[d.Name] = d.Occupies
	}
	for n := range j.Devices {
		d := &j.Devices[n]
		if len(d.Parts) > 0 {
			continue
		}
		for _, thing := range d.Occupies {
			holder, ok := held[thing]
			if !ok || holder.Device == d.Name || slices.Contains(made[holder.Device], thing) {
				continue
			}
			d.Problems = append(slices.Clip(d.Problems), device.Problem{
				Reason: ReasonPartHeld,
				Message: "claim " + holder.Claim.String() + " has it as a part of " + holder.Device +
					", of which another part is missing now: it is given to others when that claim is released",
			})
		}
	}
}

// addCounters keeps the sets of which more than one device takes something.
// The others would tell the scheduler nothing, and an API server that does not
// know counters is not bothered with them.
//
// Everything is counted in halves: of each counter there are two, of which one
// device, the first that is no composite, takes one, and every other takes both.
// Different devices that share a thing still exclude each other, and the
// scheduler gives no device to two claims anyhow. But a claim with admin access may
// look at a GPU or a VF that another has: the scheduler of Kubernetes 1.37 wants
// counters to be left for it, see
// https://github.com/kubernetes/kubernetes/issues/140729. There are none left
// for it while a claim has the pair. Where a device takes but a part of a counter,
// all take both halves of theirs: half of all and two small parts would fit.
func (j *Joined) addCounters(sets []resourceapi.CounterSet, pairs []Pair) {
	consumers := map[string]int{}
	for _, d := range j.Devices {
		for _, c := range d.Consumes {
			consumers[c.CounterSet]++
		}
	}
	there := map[counter]resourceapi.Counter{}
	for _, set := range sets {
		if consumers[set.Name] < 2 {
			continue
		}
		if slices.ContainsFunc(pairs, func(p Pair) bool { return p.VF != "" && p.set == set.Name }) {
			set = withVF(set)
		}
		for name, value := range set.Counters {
			there[counter{set.Name, name}] = value
		}
		set.Counters = allTwice(set.Counters)
		j.Counters = append(j.Counters, set)
	}
	for n := range j.Devices {
		d := &j.Devices[n]
		d.Consumes = slices.DeleteFunc(slices.Clone(d.Consumes), func(c resourceapi.DeviceCounterConsumption) bool {
			return consumers[c.CounterSet] < 2
		})
	}
	j.shareCounters(there)
}

// counter is one of a set.
type counter struct{ set, name string }

// shareCounters has devices take one half or both of the counters, of which there
// is so much without halves.
func (j *Joined) shareCounters(there map[counter]resourceapi.Counter) {
	// both are those of which nobody (else) takes one half.
	both := map[counter]bool{}
	for _, d := range j.Devices {
		for _, c := range d.Consumes {
			for name, taken := range c.Counters {
				id := counter{c.CounterSet, name}
				all := there[id]
				both[id] = both[id] || taken.Value.Cmp(all.Value) < 0
			}
		}
	}
	for _, d := range j.Devices {
		for n, c := range d.Consumes {
			taken := maps.Clone(c.Counters)
			for name, value := range c.Counters {
				id := counter{c.CounterSet, name}
				if both[id] || len(d.Parts) > 0 {
					taken[name] = twice(value)
				} else {
					both[id] = true
				}
			}
			d.Consumes[n].Counters = taken
		}
	}
}

// allTwice returns the counters with two halves of each.
func allTwice(counters map[string]resourceapi.Counter) map[string]resourceapi.Counter {
	all := make(map[string]resourceapi.Counter, len(counters))
	for name, c := range counters {
		all[name] = twice(c)
	}
	return all
}

func twice(c resourceapi.Counter) resourceapi.Counter {
	value := c.Value.DeepCopy()
	value.Mul(2)
	return resourceapi.Counter{Value: value}
}
