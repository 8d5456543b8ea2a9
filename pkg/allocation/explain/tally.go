package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// tally is what is counted for one request, or one alternative of a request.
type tally struct {
	// name is the request's, parent that of the request whose alternative it is.
	name, parent string
	class        string
	selectors    []resourceapi.DeviceSelector
	tolerations  []resourceapi.DeviceToleration
	// count is how many devices are asked for; 0 stands for all.
	count int64
	admin bool

	// kind is that of the class's devices.
	kind string
	// foreign is set if the class is of another driver.
	foreign bool
	// trouble is what makes the request impossible whatever is free.
	trouble string
	// failed is a selector that fails for a device, which the controller
	// therefore does not give.
	failed string

	// ofClass is how many devices match the class, after how many are left after
	// each selector. The numbers below are of those that are left in the end, on
	// nodes that fit.
	ofClass int
	after   []int
	// others are given away by somebody else, ill counts those with taints by the
	// taint's value. Settling are devices of the kind, matching or not, that
	// nobody gives away for now: what tells whose they are is what changes.
	others, settling int
	ill              map[string]int
	free             int
	// most is how many are free on mostNode, where most are; ever is how many
	// there are on everNode, given or not, where most are.
	most, ever         int
	mostNode, everNode string
	// enough tells whether some node has enough free devices. It is not the same
	// as most where all devices of a node are asked for.
	enough, enoughEver bool
}

// requests returns a tally for each request and each alternative.
func requests(claim *resourceapi.ResourceClaim) []*tally {
	var all []*tally
	for _, r := range claim.Spec.Devices.Requests {
		if e := r.Exactly; e != nil {
			all = append(all, &tally{
				name: r.Name, class: e.DeviceClassName, selectors: e.Selectors, tolerations: e.Tolerations,
				count: number(e.AllocationMode, e.Count), admin: e.AdminAccess != nil && *e.AdminAccess,
			})
		}
		for _, sub := range r.FirstAvailable {
			all = append(all, &tally{
				name: r.Name + "/" + sub.Name, parent: r.Name, class: sub.DeviceClassName, selectors: sub.Selectors,
				tolerations: sub.Tolerations, count: number(sub.AllocationMode, sub.Count),
			})
		}
	}
	return all
}

func number(mode resourceapi.DeviceAllocationMode, count int64) int64 {
	if mode == resourceapi.DeviceAllocationModeAll {
		return 0
	}
	return max(1, count)
}

func (t *tally) isAlternative() bool { return t.parent != "" }

func (t *tally) title() string {
	if t.isAlternative() {
		return "Alternative " + t.name
	}
	return "Request " + t.name
}

// noClass says that the request's class is not there.
func (t *tally) noClass() string {
	return fmt.Sprintf("%s names the DeviceClass %q, which does not exist: create it, or name another one in a new claim.", t.title(), t.class)
}

// needs says how many devices are asked for.
func (t *tally) needs() string {
	if t.count == 0 {
		return "all devices that match on a node"
	}
	return plural(int(t.count), "device") + " on one node"
}

func (t *tally) neverEnough() bool { return !t.foreign && !t.enoughEver }
func (t *tally) notEnough() bool   { return !t.foreign && !t.admin && !t.enough }

// temporary tells whether it may help to wait for devices that settle.
func (t *tally) temporary() bool { return t.settling > 0 }

// shortOf says what is missing now of what is needed.
func (t *tally) shortOf() string {
	switch {
	case t.most == 0:
		return "no device is free"
	case t.count == 0:
		return "nowhere are all free"
	default:
		return fmt.Sprintf("%s, which has most, has %d free", t.mostNode, t.most)
	}
}

// add counts the devices of a node of which match are those that all selectors
// leave over.
func (t *tally) add(node *fleet.Node, managed bool, match []fleet.Set) {
	total, free := 0, 0
	for i, pool := range node.Pools {
		for d := range pool.Shape.Devices {
			if device := &pool.Shape.Devices[d]; isSettling(device) && (t.kind == classes.KindMixed || t.kind == string(device.Kind)) {
				t.settling++
			}
		}
		for d := range match[i].All() {
			usable, isFree := t.sort(pool, d, managed)
			total += usable
			free += isFree
		}
	}
	t.free += free
	if free > t.most {
		t.most, t.mostNode = free, node.Name
	}
	if total > t.ever {
		t.ever, t.everNode = total, node.Name
	}
	if t.count == 0 {
		t.enough = t.enough || total > 0 && free == total
		t.enoughEver = t.enoughEver || total > 0
	} else {
		t.enough = t.enough || int64(free) >= t.count
		t.enoughEver = t.enoughEver || int64(total) >= t.count
	}
}

// sort counts one device. It returns 1 for usable if the claim may ever have it,
// and 1 for free if it may have it now.
func (t *tally) sort(pool *fleet.Pool, d int, managed bool) (usable, free int) {
	device := &pool.Shape.Devices[d]
	ill := untolerated(device, t.tolerations)
	switch {
	case isSettling(device):
	case device.Managed != managed:
		t.others++
	case ill != "":
		if t.ill == nil {
			t.ill = map[string]int{}
		}
		t.ill[ill]++
		return 1, 0 // it may get well
	case pool.Free.Has(d) || device.Several || t.admin:
		return 1, 1
	default:
		return 1, 0
	}
	return 0, 0
}

// isSettling tells whether nobody may give the device away for now.
func isSettling(d *fleet.Device) bool {
	return slices.ContainsFunc(d.Taints, func(taint resourceapi.DeviceTaint) bool {
		return taint.Key == v1alpha1.TaintManaged && taint.Value == v1alpha1.ManagedSettling
	})
}

// untolerated returns the value of a taint that keeps the device from the claim,
// or its key if it has no value.
func untolerated(d *fleet.Device, tolerations []resourceapi.DeviceToleration) string {
	for _, taint := range d.Taints {
		if !fleet.KeepsOut(taint) {
			continue
		}
		if !slices.ContainsFunc(tolerations, func(t resourceapi.DeviceToleration) bool { return tolerates(t, taint) }) {
			if taint.Value != "" {
				return taint.Value
			}
			return taint.Key
		}
	}
	return ""
}

func tolerates(t resourceapi.DeviceToleration, taint resourceapi.DeviceTaint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	return t.Operator == resourceapi.DeviceTolerationOpExists || t.Key != "" && t.Value == taint.Value
}

// String is a sentence with the numbers.
func (t *tally) String() string {
	if t.trouble != "" {
		return "" // told already
	}
	if t.foreign {
		return fmt.Sprintf("%s is of class %s, of another driver.", t.title(), t.class)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s class %s", t.title(), plural(t.ofClass, "device"), verb(t.ofClass, "matches", "match"), t.class)
	for i, n := range t.after {
		number := ""
		if len(t.after) > 1 {
			number = fmt.Sprintf(" %d", i+1)
		}
		fmt.Fprintf(&b, ", %d after selector%s (%s)", n, number, brief(expression(t.selectors[i])))
	}
	b.WriteString(t.left())
	fmt.Fprintf(&b, ", %d %s free.", t.free, verb(t.free, "is", "are"))
	if t.failed != "" {
		fmt.Fprintf(&b, " Devices for which a selector fails are not given: %s.", t.failed)
	}
	return b.String()
}

// left says which of the devices that match nobody can have now.
func (t *tally) left() string {
	var b strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(t.ill)) {
		fmt.Fprintf(&b, ", %d %s tainted (%s)", t.ill[reason], verb(t.ill[reason], "is", "are"), reason)
	}
	if t.settling > 0 {
		fmt.Fprintf(&b, ", %d %s settling, that is changing hands between kube-scheduler and the controller", t.settling, verb(t.settling, "is", "are"))
	}
	if t.others > 0 {
		fmt.Fprintf(&b, ", %d %s for claims of the other kind of class (managed or not)", t.others, verb(t.others, "is", "are"))
	}
	return b.String()
}

func expression(s resourceapi.DeviceSelector) string {
	if s.CEL == nil {
		return ""
	}
	return s.CEL.Expression
}
