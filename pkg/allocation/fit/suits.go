package fit

import (
	"context"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// suits tells which devices of a board suit which request, whoever has them.
type suits struct {
	// match has the managed devices that each request's selectors match.
	match []fleet.Set
	// tolerated are those of match whose taints the request tolerates.
	tolerated []fleet.Set
	// values has, for each constraint, a number for each device's value of the
	// attribute. Devices with the same value have the same number, and those
	// without one have -1.
	values [][]int
	// several are the devices of which several claims may have a part.
	several fleet.Set
	// err is what was wrong with a device that therefore suits nobody.
	err error
}

func (m *matcher) suits(ctx context.Context, driver string, b *board, pools []*fleet.Pool, v *variant) (*suits, error) {
	s := &suits{several: fleet.MakeSet(len(b.devices))}
	for n, d := range b.devices {
		if d.Several {
			s.several.Add(n)
		}
	}
	for i := range v.requests {
		r := &v.requests[i]
		match := fleet.MakeSet(len(b.devices))
		for at, p := range pools {
			found, err := m.request(ctx, driver, p, r)
			if err != nil {
				return nil, err
			}
			if s.err == nil {
				s.err = found.err
			}
			for d := range found.devices.All() {
				match.Add(b.first[at] + d)
			}
		}
		match = match.And(b.managed)
		tolerated := fleet.MakeSet(len(b.devices))
		for d := range match.All() {
			if r.tolerates(b.devices[d]) {
				tolerated.Add(d)
			}
		}
		s.match, s.tolerated = append(s.match, match), append(s.tolerated, tolerated)
	}
	for _, c := range v.constraints {
		s.values = append(s.values, attributeValues(driver, b, pools, c.attribute))
	}
	return s, nil
}

// attributeValues numbers the values that the devices have of an attribute.
func attributeValues(driver string, b *board, pools []*fleet.Pool, name resourceapi.FullyQualifiedName) []int {
	numbers := map[string]int{}
	values := make([]int, 0, len(b.devices))
	short, isOurs := withoutDomain(driver, name)
	for _, p := range pools {
		for n := range p.Shape.Devices {
			d := p.Device(n)
			value, ok := d.Attributes[resourceapi.QualifiedName(name)]
			if !ok && isOurs {
				value, ok = d.Attributes[short]
			}
			if !ok {
				values = append(values, -1)
				continue
			}
			text := value.String()
			if _, known := numbers[text]; !known {
				numbers[text] = len(numbers)
			}
			values = append(values, numbers[text])
		}
	}
	return values
}

func withoutDomain(driver string, name resourceapi.FullyQualifiedName) (resourceapi.QualifiedName, bool) {
	prefix := driver + "/"
	if len(name) > len(prefix) && string(name[:len(prefix)]) == prefix {
		return resourceapi.QualifiedName(name[len(prefix):]), true
	}
	return "", false
}

// usable are the devices that a request can be given in a state.
func (s *suits) usable(v *variant, request int, now *state) fleet.Set {
	if v.requests[request].admin {
		return s.tolerated[request]
	}
	return s.tolerated[request].And(now.free)
}

// possible tells whether the counts alone allow the requests to be satisfied
// from some devices. It never says no where the allocator would say yes.
func possible(v *variant, usable []fleet.Set, s *suits, from fleet.Set) bool {
	together := make(fleet.Set, len(from))
	total := 0
	several := s.several.Shared(from) > 0 // then one device may be counted twice
	for i := range v.requests {
		r := &v.requests[i]
		switch {
		case r.all && s.match[i].Len() == 0:
			return false
		case r.all && s.match[i].Shared(usable[i]) < s.match[i].Len():
			return false // one of all cannot be had
		case !r.all && usable[i].Shared(from) < r.count:
			return false
		case !r.all && !r.admin:
			total += r.count
			together.Union(usable[i].And(from))
		}
	}
	return several || together.Len() >= total
}
