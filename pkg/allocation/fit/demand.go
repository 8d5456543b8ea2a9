package fit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// demand is what claims ask of one node together. It does not depend on which
// claims they are, but on what they say.
type demand struct {
	// key is the same for claims that ask for the same.
	key      string
	variants []*variant
}

// variant is a demand of which the alternatives are decided.
type variant struct {
	// picks has the alternative for each request of each claim, 0 for requests
	// that have none. It is nil for the variant that leaves the choice to the
	// allocator.
	picks       [][]int
	requests    []request
	constraints []constraint
	// own tells that a selector may look at what machines of one shape do not
	// have in common, so that nothing can be told of one from another.
	own bool
	// boards and known are what has been found out.
	boards map[string]*boarded
	known  map[string]*known
}

// request is one that some devices must satisfy.
type request struct {
	// claim is the place of the claim in the demand.
	claim int
	// name and sub are as constraints know them; sub is empty but for an
	// alternative.
	name, sub   string
	selectors   []selector
	count       int
	all, admin  bool
	tolerations []resourceapi.DeviceToleration
}

// constraint is on all devices of some requests of a claim.
type constraint struct {
	attribute resourceapi.FullyQualifiedName
	distinct  bool
	// applies has an entry for each request of the variant.
	applies []bool
}

// Alternatives multiply. The first are tried one by one, each on all nodes, so
// that a better alternative on another node is preferred. What is left after
// that many is for the allocator to choose from, node by node.
const maxVariants = 64

// demandKey is the same for claims that ask for the same. It fails if a class is
// missing.
func demandKey(view *fleet.View, claims []*resourceapi.ResourceClaim) (string, error) {
	var key strings.Builder
	for _, c := range claims {
		text, err := json.Marshal(struct {
			R []resourceapi.DeviceRequest
			C []resourceapi.DeviceConstraint
		}{c.Spec.Devices.Requests, c.Spec.Devices.Constraints})
		if err != nil {
			return "", fmt.Errorf("read what claim %s/%s asks for: %w", c.Namespace, c.Name, err)
		}
		key.Write(text)
		if err := addClasses(&key, view, c); err != nil {
			return "", err
		}
	}
	return key.String(), nil
}

func newDemand(view *fleet.View, key string, claims []*resourceapi.ResourceClaim) (*demand, error) {
	d := &demand{key: key}
	picks := firstPicks(claims)
	for range maxVariants {
		v, err := newVariant(view, claims, picks)
		if err != nil {
			return nil, err
		}
		d.variants = append(d.variants, v)
		if picks = nextPicks(claims, picks); picks == nil {
			return d, nil
		}
	}
	rest := &variant{own: true, boards: map[string]*boarded{}, known: map[string]*known{}}
	d.variants = append(d.variants, rest)
	return d, nil
}

// addClasses adds to a key which classes are meant, as they are now.
func addClasses(key *strings.Builder, view *fleet.View, c *resourceapi.ResourceClaim) error {
	for _, r := range c.Spec.Devices.Requests {
		for pick := range alternatives(r) {
			name := exactly(r, pick).DeviceClassName
			class, err := view.Get(name)
			if err != nil {
				return fmt.Errorf("claim %s/%s, request %s: %w", c.Namespace, c.Name, r.Name, err)
			}
			fmt.Fprintf(key, ";%s/%s/%s", name, class.UID, class.ResourceVersion)
		}
	}
	return nil
}

// alternatives is how many a request has; 1 if it has none to choose from.
func alternatives(r resourceapi.DeviceRequest) int { return max(1, len(r.FirstAvailable)) }

// exactly returns an alternative of a request in the form that requests without
// alternatives have.
func exactly(r resourceapi.DeviceRequest, pick int) resourceapi.ExactDeviceRequest {
	if len(r.FirstAvailable) == 0 {
		return ptr.Deref(r.Exactly, resourceapi.ExactDeviceRequest{})
	}
	sub := r.FirstAvailable[pick]
	return resourceapi.ExactDeviceRequest{
		DeviceClassName: sub.DeviceClassName, Selectors: sub.Selectors, AllocationMode: sub.AllocationMode,
		Count: sub.Count, Tolerations: sub.Tolerations, Capacity: sub.Capacity,
	}
}

func firstPicks(claims []*resourceapi.ResourceClaim) [][]int {
	picks := make([][]int, len(claims))
	for i, c := range claims {
		picks[i] = make([]int, len(c.Spec.Devices.Requests))
	}
	return picks
}

// nextPicks goes to the next alternatives in the allocator's order, in which the
// last request changes first. It returns nil after the last.
func nextPicks(claims []*resourceapi.ResourceClaim, picks [][]int) [][]int {
	next := make([][]int, len(picks))
	for i := range picks {
		next[i] = slices.Clone(picks[i])
	}
	for i := len(claims) - 1; i >= 0; i-- {
		requests := claims[i].Spec.Devices.Requests
		for j := len(requests) - 1; j >= 0; j-- {
			if next[i][j]++; next[i][j] < alternatives(requests[j]) {
				return next
			}
			next[i][j] = 0
		}
	}
	return nil
}

func newVariant(view *fleet.View, claims []*resourceapi.ResourceClaim, picks [][]int) (*variant, error) {
	v := &variant{picks: picks, boards: map[string]*boarded{}, known: map[string]*known{}}
	for i, c := range claims {
		first := len(v.requests)
		for j, r := range c.Spec.Devices.Requests {
			e := exactly(r, picks[i][j])
			class, err := view.Get(e.DeviceClassName)
			if err != nil {
				return nil, fmt.Errorf("claim %s/%s, request %s: %w", c.Namespace, c.Name, r.Name, err)
			}
			q := request{
				claim: i, name: r.Name, count: int(min(e.Count, resourceapi.AllocationResultsMaxSize+1)),
				all: e.AllocationMode == resourceapi.DeviceAllocationModeAll, admin: ptr.Deref(e.AdminAccess, false),
				selectors: selectorsOf(class, e.Selectors), tolerations: e.Tolerations,
			}
			if len(r.FirstAvailable) > 0 {
				q.sub = r.FirstAvailable[picks[i][j]].Name
			}
			v.requests = append(v.requests, q)
		}
		for _, limit := range c.Spec.Devices.Constraints {
			v.constrain(limit, first)
		}
	}
	for i := range v.constraints { // claims that come later are not meant
		c := &v.constraints[i]
		c.applies = append(c.applies, make([]bool, len(v.requests)-len(c.applies))...)
	}
	return v, nil
}

// constrain adds a constraint of the claim whose requests start at first.
func (v *variant) constrain(limit resourceapi.DeviceConstraint, first int) {
	c := constraint{applies: make([]bool, len(v.requests))}
	switch {
	case limit.MatchAttribute != nil:
		c.attribute = *limit.MatchAttribute
	case limit.DistinctAttribute != nil:
		c.attribute, c.distinct = *limit.DistinctAttribute, true
	default:
		return // unknown here; the allocator decides
	}
	for n := first; n < len(v.requests); n++ {
		r := v.requests[n]
		c.applies[n] = len(limit.Requests) == 0 || slices.Contains(limit.Requests, r.name) ||
			r.sub != "" && slices.Contains(limit.Requests, r.name+"/"+r.sub)
	}
	v.constraints = append(v.constraints, c)
}

// isWhole tells whether the allocator must see everything that matches, and not
// only what would suit best: it is asked for all, or for what others have, too.
func (v *variant) isWhole() bool {
	return v.picks == nil || slices.ContainsFunc(v.requests, func(r request) bool { return r.all || r.admin })
}

// claims returns the claims with no other alternatives than the variant's.
func (v *variant) claims(all []*resourceapi.ResourceClaim) []*resourceapi.ResourceClaim {
	if v.picks == nil {
		return all
	}
	decided := make([]*resourceapi.ResourceClaim, len(all))
	for i, c := range all {
		decided[i] = c
		if !slices.ContainsFunc(c.Spec.Devices.Requests, func(r resourceapi.DeviceRequest) bool { return len(r.FirstAvailable) > 1 }) {
			continue
		}
		one := *c
		one.Spec.Devices.Requests = slices.Clone(c.Spec.Devices.Requests)
		for j := range one.Spec.Devices.Requests {
			if r := &one.Spec.Devices.Requests[j]; len(r.FirstAvailable) > 1 {
				pick := v.picks[i][j]
				r.FirstAvailable = r.FirstAvailable[pick : pick+1]
			}
		}
		decided[i] = &one
	}
	return decided
}

// isOwn tells whether the attribute is one that machines of a shape do not have
// in common.
func (c *constraint) isOwn() bool {
	_, id, _ := strings.Cut(string(c.attribute), "/")
	return slices.Contains(fleet.OwnAttributes(), id)
}
