package fleet

import (
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/ptr"
)

// claim is what is kept of a ResourceClaim.
type claim struct {
	// version is that of the newest news of it.
	version string
	given   []given
	// assumed tells that given is what we have written, or are about to write,
	// and of which no news has come.
	assumed bool
	// written is the version of our write, once it is known.
	written string
}

// given is one device of our driver that a claim has.
type given struct {
	deviceID
	share    types.UID
	capacity map[resourceapi.QualifiedName]resource.Quantity
}

func sameDevice(a, b given) bool { return a.deviceID == b.deviceID && a.share == b.share }

// SetClaim tells of a claim that is new or has changed, whoever allocates it.
// What its status allocates is taken.
//
// It ends what was assumed of the claim if the claim is allocated, or is newer
// than our own write.
func (f *Fleet) SetClaim(c *resourceapi.ResourceClaim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.claims[c.UID]
	if before == nil {
		before = &claim{}
		f.claims[c.UID] = before
	}
	before.version = c.ResourceVersion
	if c.Status.Allocation == nil && before.assumed && !isNewer(c.ResourceVersion, before.written) {
		return
	}
	before.assumed, before.written = false, ""
	f.replace(before, f.given(c.Status.Allocation))
}

// DeleteClaim tells that there is no such claim any more.
func (f *Fleet) DeleteClaim(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.claims[uid]; c != nil {
		f.replace(c, nil)
		delete(f.claims, uid)
	}
}

// Assume takes what an allocation gives to a claim before the API tells of it:
// call it before the allocation is written, and [Fleet.Wrote] or [Fleet.Forget]
// after.
//
// It fails with [ErrTaken], and takes nothing, if that would give something to
// two claims, or if the API tells of another allocation of the claim by now. Then
// the claim must be planned anew, or has what it needs.
func (f *Fleet) Assume(uid types.UID, a *resourceapi.AllocationResult) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.claims[uid]
	if c == nil {
		c = &claim{}
	}
	want := f.given(a)
	// What the API has told of is no assumption: if the write failed, Forget would
	// give away what the claim really has.
	if !c.assumed && len(c.given) > 0 {
		if slices.EqualFunc(c.given, want, sameDevice) {
			return nil
		}
		return fmt.Errorf("claim %s is allocated already, and device %s of pool %s: %w", uid, c.given[0].device, c.given[0].pool, ErrTaken)
	}
	if err := f.available(uid, c, want); err != nil {
		return err
	}
	f.claims[uid] = c
	c.assumed, c.written = true, ""
	f.replace(c, want)
	return nil
}

// Wrote tells which version the claim got when its allocation was written. From
// then on, news of a newer version without an allocation free the devices, also
// when the news in between got lost.
func (f *Fleet) Wrote(uid types.UID, resourceVersion string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.claims[uid]
	if c == nil || !c.assumed {
		return
	}
	c.written = resourceVersion
	if isNewer(c.version, resourceVersion) {
		c.assumed = false
		f.replace(c, nil)
	}
}

// Forget gives back what was assumed, because it was not written. It does
// nothing if the API has told of the allocation by now.
func (f *Fleet) Forget(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.claims[uid]; c != nil && c.assumed {
		c.assumed, c.written = false, ""
		f.replace(c, nil)
		if c.version == "" { // the API has never told of it
			delete(f.claims, uid)
		}
	}
}

// Holders returns the claims that have the device, in no order. More than one
// has been given something that it must not have.
func (f *Fleet) Holders(pool, device string) []types.UID {
	f.mu.Lock()
	defer f.mu.Unlock()
	var holders []types.UID
	for uid, c := range f.claims {
		if slices.ContainsFunc(c.given, func(g given) bool { return g.deviceID == deviceID{pool, device} && g.share == "" }) {
			holders = append(holders, uid)
		}
	}
	return holders
}

// isNewer tells whether version a is surely newer than b. An unknown b is never
// older.
func isNewer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order > 0
}

// given is what an allocation takes of our driver. Access for administrators
// takes nothing.
func (f *Fleet) given(a *resourceapi.AllocationResult) []given {
	if a == nil {
		return nil
	}
	var all []given
	for _, r := range a.Devices.Results {
		if r.Driver != f.driver || ptr.Deref(r.AdminAccess, false) {
			continue
		}
		g := given{deviceID: deviceID{strings.Clone(r.Pool), strings.Clone(r.Device)}}
		if r.ShareID != nil {
			g.share, g.capacity = *r.ShareID, r.ConsumedCapacity
		}
		all = append(all, g)
	}
	return all
}

// replace makes what a claim has now what it is to have.
func (f *Fleet) replace(c *claim, now []given) {
	if slices.EqualFunc(c.given, now, sameDevice) {
		return
	}
	changed := map[string]bool{}
	for _, g := range c.given {
		changed[g.pool] = true
		f.release(g)
	}
	for _, g := range now {
		changed[g.pool] = true
		f.take(g)
	}
	c.given = now
	for name := range changed {
		if p := f.pools[name]; p != nil {
			f.give(p)
			f.touch(p.node)
		}
	}
}

func (f *Fleet) take(g given) {
	if g.share == "" {
		f.taken[g.deviceID]++
		return
	}
	if f.shares[g.deviceID] == nil {
		f.shares[g.deviceID] = map[types.UID]map[resourceapi.QualifiedName]resource.Quantity{}
	}
	f.shares[g.deviceID][g.share] = g.capacity
}

func (f *Fleet) release(g given) {
	if g.share == "" {
		if f.taken[g.deviceID]--; f.taken[g.deviceID] == 0 {
			delete(f.taken, g.deviceID)
		}
		return
	}
	delete(f.shares[g.deviceID], g.share)
	if len(f.shares[g.deviceID]) == 0 {
		delete(f.shares, g.deviceID)
	}
}

// available checks that a claim can be given what it wants in place of what it
// has.
func (f *Fleet) available(uid types.UID, c *claim, want []given) error {
	left := map[string][]int64{}
	wanted := map[deviceID]bool{}
	for _, g := range want {
		if g.share != "" {
			continue // how much is left of it is for the allocator to tell
		}
		has := slices.ContainsFunc(c.given, func(h given) bool { return h.deviceID == g.deviceID })
		if f.taken[g.deviceID] > 1 || f.taken[g.deviceID] == 1 && !has || wanted[g.deviceID] {
			return fmt.Errorf("claim %s: device %s of pool %s is %w", uid, g.device, g.pool, ErrTaken)
		}
		wanted[g.deviceID] = true
		p := f.pools[g.pool]
		if p == nil || p.now == nil || has {
			continue
		}
		n, ok := p.now.Shape.Place(g.device)
		if !ok {
			continue
		}
		if left[g.pool] == nil {
			left[g.pool] = p.now.left(c.given)
		}
		d := &p.now.Shape.Devices[n]
		if !d.Fits(left[g.pool]) {
			return fmt.Errorf("claim %s: a part of device %s of pool %s is %w", uid, g.device, g.pool, ErrTaken)
		}
		for _, use := range d.Uses {
			left[g.pool][use.Counter] -= use.Amount
		}
	}
	return nil
}

// left is what is left of the counters, not counting what the claim itself has.
func (p *Pool) left(has []given) []int64 {
	others := slices.Clone(p.Taken)
	for _, s := range p.Shares {
		others.Add(s.Device)
	}
	for _, g := range has {
		if n, ok := p.Shape.Place(g.device); ok && g.pool == p.Name {
			others.Remove(n)
		}
	}
	return p.Shape.Left(others)
}
