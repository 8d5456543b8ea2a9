package fit

import (
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// TestNodeWithTwoPools has devices and counters of the same names in both.
func TestNodeWithTwoPools(t *testing.T) {
	w := newWorld(t, small("a"))
	for _, s := range small("a").Slices() {
		s.Name += "-second"
		s.Spec.Pool.Name = "a-second/" + fleettest.Driver
		w.SetSlice(s)
	}
	w.use("a", "gpu-0-vf", "gpu-1-vf", "gpu-2-vf")
	for n, want := range map[int64]int{1: 1, 4: 4, 5: 5} {
		choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", gpus(n))}})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(choice.Allocation.Devices.Results); got != want {
			t.Errorf("%d GPUs: %v", n, choice.Allocation.Devices.Results)
		}
		if err := w.Assume(choice.Claim, &choice.Allocation); err != nil {
			t.Error(err)
		}
		w.Forget(choice.Claim)
	}
	if got := w.ask(gpus(6)); !strings.HasPrefix(got, "error: nothing fits") {
		t.Error(got)
	}
}

// TestSharesOfADevice has a device of which claims get parts, until it is full.
func TestSharesOfADevice(t *testing.T) {
	m := small("a")
	w := newWorld(t)
	w.SetNode(m.Object(nil))
	for _, s := range m.Slices() {
		for i := range s.Spec.Devices {
			if d := &s.Spec.Devices[i]; d.Name == "vf-0-0" {
				d.AllowMultipleAllocations = ptr.To(true)
				d.Capacity = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"bandwidth": {Value: resource.MustParse("10")}}
			}
		}
		w.SetSlice(s)
	}
	part := func(name, amount string) resourceapi.DeviceRequest {
		r := fleettest.Request(name, fleettest.ClassVF, 1, `device.allowMultipleAllocations`)
		r.Exactly.Capacity = &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{"bandwidth": resource.MustParse(amount)}}
		return r
	}
	give := func(name string, requests ...resourceapi.DeviceRequest) error {
		choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim(name, requests...)}})
		if err != nil {
			return err
		}
		return w.Assume(choice.Claim, &choice.Allocation)
	}
	if err := give("two parts", part("r", "4"), part("s", "3")); err != nil {
		t.Error(err)
	}
	if err := give("too much", part("r", "4")); err == nil {
		t.Error("14 of 10 are given")
	}
	if err := give("the rest", part("r", "3")); err != nil {
		t.Error(err)
	}
	w.Forget(types.UID("uid-of-two parts"))
	if err := give("again", part("r", "7")); err != nil {
		t.Error(err)
	}
}

// TestManyAlternatives has more of them than are tried one by one.
func TestManyAlternatives(t *testing.T) {
	w := newWorld(t, small("a"))
	w.use("a", "gpu-0")
	var requests []resourceapi.DeviceRequest
	for _, name := range []string{"x", "y", "z"} {
		var some []resourceapi.DeviceRequest
		for i := range 7 {
			r := gpus(int64(9 - i))
			r.Name = string(rune('a' + i))
			some = append(some, r)
		}
		last := vfs(1)
		last.Name = "last"
		requests = append(requests, fleettest.FirstOf(name, append(some, last)...))
	}
	// Beyond the bound the allocator chooses, which takes what comes first.
	if got := w.ask(requests...); !strings.HasPrefix(got, "a: gpu-1 gpu-2 gpu-3 vf-") {
		t.Error(got)
	}
}
