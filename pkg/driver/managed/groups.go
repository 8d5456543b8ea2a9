package managed

import "slices"

// Allocator is who gives a device to claims.
type Allocator string

// The allocators.
const (
	// Scheduler is kube-scheduler, which has every device that nothing else is
	// said of.
	Scheduler Allocator = "scheduler"
	// Controller is this project's controller.
	Controller Allocator = "controller"
	// Settling is nobody: the device is on its way from one to the other.
	Settling Allocator = "settling"
)

// Device is a device of the node's pool.
type Device struct {
	Name string
	// Shares are the names of what the device takes a part of: counter sets and
	// physical things.
	Shares []string
	// Managed tells that the configuration gives the device to the controller.
	Managed bool
}

// group is devices that have one allocator, for what one of them takes the
// others cannot have.
type group struct {
	names []string
	// target is who the configuration wants to give them.
	target Allocator
}

// groups returns the devices such that all that share something, if only
// through others, are together. The controller gets those of which it is meant
// to have one.
func groups(devices []Device) []group {
	// leader leads from each device to another one of its group, and in the end
	// to the one that leads to itself.
	leader := make([]int, len(devices))
	find := func(n int) int {
		for leader[n] != n {
			leader[n] = leader[leader[n]]
			n = leader[n]
		}
		return n
	}
	first := map[string]int{}
	for n, d := range devices {
		leader[n] = n
		for _, thing := range d.Shares {
			if other, ok := first[thing]; ok {
				leader[find(n)] = find(other)
			} else {
				first[thing] = n
			}
		}
	}
	var all []group
	place := map[int]int{}
	for n, d := range devices {
		root := find(n)
		at, ok := place[root]
		if !ok {
			at = len(all)
			place[root] = at
			all = append(all, group{target: Scheduler})
		}
		all[at].names = append(all[at].names, d.Name)
		if d.Managed {
			all[at].target = Controller
		}
	}
	return all
}

// TakenAlong returns the names of the devices that the controller gets though
// the configuration does not give them to it, because they share something with
// one that it does.
func TakenAlong(devices []Device) []string {
	own := map[string]bool{}
	for _, d := range devices {
		own[d.Name] = d.Managed
	}
	var names []string
	for _, g := range groups(devices) {
		if g.target == Controller {
			names = append(names, slices.DeleteFunc(g.names, func(name string) bool { return own[name] })...)
		}
	}
	slices.Sort(names)
	return names
}
