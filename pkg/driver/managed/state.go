package managed

import (
	"maps"
	"slices"
	"time"
)

const (
	// confirmEvery is how often the API is asked whether it says that a device
	// is given to nobody, until it does.
	confirmEvery = time.Second
	// lookEvery is the same afterwards, for it must go on saying so.
	lookEvery = 5 * time.Second
)

// state is what is kept of the devices.
type state struct {
	Version int `json:"version"`
	// Decider is the number of the instance of the plugin that decides.
	Decider int64 `json:"decider"`
	// BootID tells to which boot the times belong.
	BootID string `json:"bootID"`
	// Devices are those that are not kube-scheduler's, those that are not there
	// at the moment included.
	Devices map[string]entry `json:"devices,omitempty"`

	// lost tells that there was no file, so that only the API knows how far a
	// device may have come.
	lost bool
}

// entry is how far a device has come.
type entry struct {
	Allocator Allocator `json:"allocator"`
	// Since is when the API was seen to give a device that is settling to
	// nobody, and has done so ever since, as far as was looked: a time since the
	// boot, in nanoseconds. Zero: not seen yet.
	Since time.Duration `json:"since,omitempty"`
}

// Change is a step on the way of some devices from one allocator to the other.
type Change struct {
	Devices []string
	// Now is who gives them from now on: nobody at the beginning, the target at
	// the end.
	Now, Target Allocator
	// Astray tells that the API said of one of them what this node does not
	// know of: something else has published it.
	Astray bool
}

func (s *state) of(device string) entry {
	if e, ok := s.Devices[device]; ok {
		return e
	}
	return entry{Allocator: Scheduler}
}

func (s *state) set(device string, e entry) {
	if e.Allocator == Scheduler {
		delete(s.Devices, device)
		return
	}
	if s.Devices == nil {
		s.Devices = map[string]entry{}
	}
	s.Devices[device] = e
}

func (s *state) clone() *state {
	c := *s
	c.Devices = maps.Clone(s.Devices)
	return &c
}

func (s *state) settling() bool {
	for _, e := range s.Devices {
		if e.Allocator == Settling {
			return true
		}
	}
	return false
}

// allocators returns the devices that are not kube-scheduler's.
func (s *state) allocators() map[string]Allocator {
	all := make(map[string]Allocator, len(s.Devices))
	for name, e := range s.Devices {
		all[name] = e.Allocator
	}
	return all
}

// look is what the API says of devices, by name; nil if it was not asked.
type look map[string]Allocator

// step brings the groups as far as they can be at this moment. It returns what
// has changed, and when to come back: zero if nothing is on its way.
func (s *state) step(now, settle time.Duration, all []group, seen look) (changes []Change, next time.Duration) {
	for _, g := range all {
		astray := false
		for _, name := range g.names {
			if s.compare(name, now, seen) {
				astray = true
			}
		}
		if !slices.ContainsFunc(g.names, func(name string) bool { return s.of(name).Allocator != g.target }) {
			continue
		}
		begun, wait := s.settle(g, now, settle)
		if begun || astray {
			changes = append(changes, Change{Devices: g.names, Now: Settling, Target: g.target, Astray: astray})
		}
		if wait <= 0 && seen != nil {
			for _, name := range g.names {
				s.set(name, entry{Allocator: g.target})
			}
			changes = append(changes, Change{Devices: g.names, Now: g.target, Target: g.target})
			continue
		}
		if wait = max(wait, time.Millisecond); next == 0 || wait < next {
			next = wait
		}
	}
	s.lost = false
	return changes, next
}

// compare compares what is known of a device with what the API says. It tells
// whether something else must have published it.
func (s *state) compare(name string, now time.Duration, seen look) (astray bool) {
	if seen == nil {
		return false
	}
	e := s.of(name)
	said, there := seen[name]
	switch {
	case e.Allocator == Settling && there && said != Settling:
		// Not written yet, or another has overwritten it.
		e.Since = 0
	case e.Allocator == Settling:
		// What is not in the API is given to nobody, too.
		if e.Since == 0 || e.Since > now {
			e.Since = now
		}
	case !there || said == e.Allocator:
		return false
	case said == Settling && !s.lost:
		return false // it is about to be overwritten
	default:
		e, astray = entry{Allocator: Settling}, true
	}
	s.set(name, e)
	return astray
}

// settle makes the whole group settle, and returns whether that begins for one
// of its devices, and how long it is to be left alone.
func (s *state) settle(g group, now, settle time.Duration) (begun bool, wait time.Duration) {
	for _, name := range g.names {
		e := s.of(name)
		if e.Allocator != Settling {
			e, begun = entry{Allocator: Settling}, true
			s.set(name, e)
		}
		if e.Since == 0 {
			wait = max(wait, confirmEvery)
			continue
		}
		wait = max(wait, min(settle-(now-e.Since), lookEvery))
	}
	return begun, wait
}
