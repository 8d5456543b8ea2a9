package fleet_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

func TestWhatClaimsTake(t *testing.T) {
	m := two("a")
	for name, tc := range map[string]struct {
		devices []string
		want    string
	}{
		"nothing":       {nil, "gpu-0 gpu-1 gpu-0-vf gpu-1-vf"},
		"a GPU":         {[]string{"gpu-0"}, "gpu-1 gpu-1-vf"},
		"a composite":   {[]string{"gpu-0-vf"}, "gpu-1 gpu-1-vf"},
		"a paired VF":   {[]string{"vf-0-1"}, "gpu-0 gpu-1 gpu-1-vf"},
		"another VF":    {[]string{"vf-0-0"}, "gpu-0 gpu-1 gpu-0-vf gpu-1-vf"},
		"GPU and VF":    {[]string{"gpu-0", "vf-0-1"}, "gpu-1 gpu-1-vf"},
		"what is gone":  {[]string{"gpu-7"}, "gpu-0 gpu-1 gpu-0-vf gpu-1-vf"},
		"all the pairs": {[]string{"gpu-0-vf", "gpu-1-vf"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(m)
			claim := fleettest.Allocated(fleettest.Claim("x"), m, tc.devices...)
			f.SetClaim(claim)
			if got := free(pool(t, f, "a")); got != tc.want {
				t.Errorf("free: %q", got)
			}
			f.DeleteClaim(claim.UID)
			if got := free(pool(t, f, "a")); got != "gpu-0 gpu-1 gpu-0-vf gpu-1-vf" {
				t.Errorf("free again: %q", got)
			}
			// A claim may be known before the slices are.
			f = newFleet()
			f.SetClaim(claim)
			f.SetNode(m.Object(nil))
			for _, s := range m.Slices() {
				f.SetSlice(s)
			}
			if got := free(pool(t, f, "a")); got != tc.want {
				t.Errorf("free if the claim came first: %q", got)
			}
		})
	}
}

func TestWhatDoesNotTake(t *testing.T) {
	m := two("a")
	admin := fleettest.Allocated(fleettest.Claim("x"), m, "gpu-0")
	admin.Status.Allocation.Devices.Results[0].AdminAccess = ptr.To(true)
	other := fleettest.Allocated(fleettest.Claim("y"), m, "gpu-1")
	other.Status.Allocation.Devices.Results[0].Driver = "gpu.example.com"
	share := fleettest.Allocated(fleettest.Claim("z"), m, "vf-0-0")
	share.Status.Allocation.Devices.Results[0].ShareID = ptr.To(types.UID("share"))
	share.Status.Allocation.Devices.Results[0].ConsumedCapacity = map[resourceapi.QualifiedName]resource.Quantity{"bandwidth": resource.MustParse("1")}
	f := newFleet(m)
	key := pool(t, f, "a").Key()
	for _, c := range []*resourceapi.ResourceClaim{admin, other} {
		f.SetClaim(c)
	}
	if p := pool(t, f, "a"); p.Taken.Len() != 0 || p.Key() != key {
		t.Errorf("taken: %v", names(p, p.Taken))
	}
	f.SetClaim(share)
	p := pool(t, f, "a")
	if place, _ := p.Shape.Place("vf-0-0"); len(p.Shares) != 1 || p.Shares[0].Device != place || !p.Free.Has(place) || p.Key() == key {
		t.Errorf("a share is %v", p.Shares)
	}
	f.DeleteClaim(share.UID)
	if p := pool(t, f, "a"); len(p.Shares) != 0 || p.Key() != key {
		t.Errorf("a share that was given back is %v", p.Shares)
	}
}

func TestAssume(t *testing.T) {
	m := two("a")
	claim := fleettest.Claim("x")
	given := fleettest.Allocated(claim, m, "gpu-0")
	later := func(version string, c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
		c = c.DeepCopy()
		c.ResourceVersion = version
		return c
	}
	const all, rest = "gpu-0 gpu-1 gpu-0-vf gpu-1-vf", "gpu-1 gpu-1-vf"
	for name, tc := range map[string]struct {
		then func(*fleet.Fleet)
		want string
	}{
		"nothing happens":               {func(*fleet.Fleet) {}, rest},
		"it is forgotten":               {func(f *fleet.Fleet) { f.Forget(claim.UID) }, all},
		"the finalizer is news":         {func(f *fleet.Fleet) { f.SetClaim(later("2", claim)) }, rest},
		"the allocation is news":        {func(f *fleet.Fleet) { f.SetClaim(later("3", given)) }, rest},
		"news, then it is forgotten":    {func(f *fleet.Fleet) { f.SetClaim(later("3", given)); f.Forget(claim.UID) }, rest},
		"news, then it is freed":        {func(f *fleet.Fleet) { f.SetClaim(later("3", given)); f.SetClaim(later("4", claim)) }, all},
		"written, old news":             {func(f *fleet.Fleet) { f.Wrote(claim.UID, "3"); f.SetClaim(later("2", claim)) }, rest},
		"written, news of it were lost": {func(f *fleet.Fleet) { f.Wrote(claim.UID, "3"); f.SetClaim(later("4", claim)) }, all},
		"news were lost, then written":  {func(f *fleet.Fleet) { f.SetClaim(later("4", claim)); f.Wrote(claim.UID, "3") }, all},
		"written after the news":        {func(f *fleet.Fleet) { f.SetClaim(later("3", given)); f.Wrote(claim.UID, "3") }, rest},
		"another allocation is news":    {func(f *fleet.Fleet) { f.SetClaim(later("3", fleettest.Allocated(claim, m, "gpu-1"))) }, "gpu-0 gpu-0-vf"},
		"it is deleted":                 {func(f *fleet.Fleet) { f.DeleteClaim(claim.UID) }, all},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(m)
			f.SetClaim(claim)
			if err := f.Assume(claim.UID, given.Status.Allocation); err != nil {
				t.Fatal(err)
			}
			if got := free(pool(t, f, "a")); got != rest {
				t.Errorf("assumed, and free: %q", got)
			}
			tc.then(f)
			if got := free(pool(t, f, "a")); got != tc.want {
				t.Errorf("free: %q, want %q", got, tc.want)
			}
		})
	}
}

// Another leader's write may be heard of after this one has planned the claim, and
// before it has taken what it planned.
func TestWhatTheAPITellsIsNoAssumption(t *testing.T) {
	m := two("a")
	claim := fleettest.Claim("x")
	told := fleettest.Allocated(claim, m, "gpu-0")
	const rest = "gpu-1 gpu-1-vf"
	for name, tc := range map[string]struct {
		device string
		taken  bool
	}{
		"the same devices": {"gpu-0", false},
		"others":           {"gpu-1", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(m)
			f.SetClaim(told)
			err := f.Assume(claim.UID, fleettest.Allocated(claim, m, tc.device).Status.Allocation)
			if errors.Is(err, fleet.ErrTaken) != tc.taken || (err != nil) != tc.taken {
				t.Errorf("assumed: %v", err)
			}
			// The write fails, for the claim has changed.
			f.Forget(claim.UID)
			if got := free(pool(t, f, "a")); got != rest {
				t.Errorf("free while the claim has gpu-0: %q", got)
			}
			freed := claim.DeepCopy()
			freed.ResourceVersion = "99"
			f.SetClaim(freed)
			if got, want := free(pool(t, f, "a")), "gpu-0 gpu-1 gpu-0-vf gpu-1-vf"; got != want {
				t.Errorf("free once the claim is freed: %q, want %q", got, want)
			}
		})
	}
}

func TestAssumeGivesNothingTwice(t *testing.T) {
	m := two("a")
	for name, tc := range map[string]struct {
		has, wants []string
		err        string
	}{
		"another device":           {[]string{"gpu-0"}, []string{"gpu-1"}, ""},
		"the device":               {[]string{"gpu-0"}, []string{"gpu-1", "gpu-0"}, "claim uid-of-y: device gpu-0 of pool a/eks-hybrid-dra is given to another claim in the meantime"},
		"the composite of the GPU": {[]string{"gpu-0"}, []string{"gpu-0-vf"}, "a part of device gpu-0-vf"},
		"the GPU of the composite": {[]string{"gpu-0-vf"}, []string{"gpu-0"}, "a part of device gpu-0 "},
		"GPU and VF of a pair":     {nil, []string{"gpu-0", "vf-0-1"}, ""},
		"GPU and its composite":    {nil, []string{"gpu-0", "gpu-0-vf"}, "a part of device gpu-0-vf"},
		"a device twice":           {nil, []string{"gpu-0", "gpu-0"}, "device gpu-0"},
		"what nobody knows":        {nil, []string{"gpu-9"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(m)
			f.SetClaim(fleettest.Allocated(fleettest.Claim("x"), m, tc.has...))
			before := free(pool(t, f, "a"))
			y := fleettest.Allocated(fleettest.Claim("y"), m, tc.wants...)
			err := f.Assume(y.UID, y.Status.Allocation)
			if tc.err == "" {
				if err != nil {
					t.Error(err)
				}
				// What is assumed may be assumed again.
				if err := f.Assume(y.UID, y.Status.Allocation); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, fleet.ErrTaken) || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v", err)
			}
			if got := free(pool(t, f, "a")); got != before {
				t.Errorf("free after the refusal: %q", got)
			}
		})
	}
}

func TestHolders(t *testing.T) {
	m := two("a")
	f := newFleet(m)
	f.SetClaim(fleettest.Allocated(fleettest.Claim("x"), m, "gpu-0"))
	f.SetClaim(fleettest.Allocated(fleettest.Claim("y"), m, "gpu-0", "gpu-1"))
	got := f.Holders(m.Pool(), "gpu-0")
	slices.Sort(got)
	if !slices.Equal(got, []types.UID{"uid-of-x", "uid-of-y"}) {
		t.Error(got)
	}
	f.DeleteClaim("uid-of-x") // the other one still has it
	if got := free(pool(t, f, "a")); got != "" {
		t.Errorf("free: %q", got)
	}
}
