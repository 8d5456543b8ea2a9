package controller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/rivals"
)

// dgx returns a machine of which the scheduler could know, with its GPUs and
// pairs.
func dgx(t *testing.T) *published.Machine {
	t.Helper()
	slice := resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "0-dgx-0"}}
	slice.Spec = resourceapi.ResourceSliceSpec{
		Driver: harness.DriverName, NodeName: ptr.To("dgx-0"),
		Pool: resourceapi.ResourcePool{Name: "dgx-0/eks-hybrid-dra", Generation: 1, ResourceSliceCount: 1},
	}
	for i := range published.GPUs {
		for _, kind := range []string{published.TypeGPU, published.TypePair} {
			slice.Spec.Devices = append(slice.Spec.Devices, resourceapi.Device{
				Name:       fmt.Sprintf("%s-%d", kind, i),
				Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"type": {StringValue: ptr.To(kind)}},
			})
		}
	}
	m, err := published.New([]resourceapi.ResourceSlice{slice})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMachinesChangeHands(t *testing.T) {
	client, machine := fake.NewClientset(), dgx(t)
	slices := client.ResourceV1().ResourceSlices()
	for _, slice := range machine.As("n") {
		if _, err := slices.Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet(client, machine)
	for i, step := range []struct {
		to               rivals.Allocator
		allocator, taint string
	}{
		{rivals.Controller, device.AllocatorController, v1alpha1.ManagedByController},
		{rivals.Settling, "", v1alpha1.ManagedSettling},
		{rivals.Scheduler, "", ""},
		{rivals.Controller, device.AllocatorController, v1alpha1.ManagedByController},
	} {
		if err := f.hand(t.Context(), "n", step.to); err != nil {
			t.Fatal(err)
		}
		slice, err := slices.Get(t.Context(), "0-n", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := slice.Spec.Pool.Generation, int64(2+i); got != want {
			t.Errorf("given to %s: the pool has generation %d, want %d", step.to, got, want)
		}
		for _, d := range slice.Spec.Devices {
			taint := ""
			for _, is := range d.Taints {
				taint += is.Key + "=" + is.Value
			}
			want := step.taint
			if want != "" {
				want = v1alpha1.TaintManaged + "=" + want
			}
			if got := published.Text(d, device.AttributeAllocator); got != step.allocator || taint != want {
				t.Errorf("given to %s: device %s has the allocator %q and the taint %q, want %q and %q", step.to, d.Name, got, taint, step.allocator, want)
			}
		}
	}
	if got := machine.Devices(published.TypeGPU)[0]; len(got.Taints) > 0 || published.Text(got, device.AttributeAllocator) != "" {
		t.Error("the machine itself was changed")
	}
}

// A machine of which some slices were published and others not is published
// whole the next time.
func TestAHandoverThatFailedIsMadeGood(t *testing.T) {
	client, machine := fake.NewClientset(), dgx(t)
	machine.Slices = append(machine.Slices, machine.Slices[0].DeepCopy())
	machine.Slices[1].Name = "1-dgx-0"
	slices := client.ResourceV1().ResourceSlices()
	for _, slice := range machine.As("n") {
		if _, err := slices.Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet(client, machine)
	fails := false
	client.PrependReactor("update", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		update, ok := action.(clienttesting.UpdateAction)
		if ok && fails && update.GetObject().(*resourceapi.ResourceSlice).Name == "1-n" { //nolint:forcetypeassert // what is updated
			return true, nil, errors.New("lost")
		}
		return false, nil, nil
	})
	for _, fails = range []bool{false, true, false} {
		if err := f.hand(t.Context(), "n", rivals.Controller); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"0-n", "1-n"} {
		slice, err := slices.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := slice.Spec.Pool.Generation; got != 4 {
			t.Errorf("slice %s has generation %d", name, got)
		}
	}
}

func TestClassesOfDemands(t *testing.T) {
	for want, class := range map[string]string{
		"managed-gpu-vf.eks-hybrid-dra": demand{published.TypePair, 2}.of(true).Requests[0].Exactly.DeviceClassName,
		"gpu.eks-hybrid-dra":            demand{published.TypeGPU, 2}.of(false).Requests[0].Exactly.DeviceClassName,
	} {
		if class != want {
			t.Errorf("got class %s, want %s", class, want)
		}
	}
}

func claim(name string, finalizer, allocated bool) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if finalizer {
		c.Finalizers = []string{resourceapi.Finalizer}
	}
	if allocated {
		c.Status.Allocation = &resourceapi.AllocationResult{}
	}
	return c
}

func TestATimeBeginsWithTheLastClaimAndEndsWithTheLastAllocation(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &sightings{of: map[string]sighting{}, more: make(chan struct{})}
	for ms, event := range []*resourceapi.ResourceClaim{
		claim("a", false, false), claim("a", true, false), claim("a", true, true), claim("b", false, false),
		claim("b", true, false), claim("a", true, true), claim("b", true, true), claim("b", true, true),
	} {
		s.note(event, false, start.Add(time.Duration(ms)*time.Millisecond))
	}
	all, err := s.allocated(t.Context(), []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if got := between(all); got != 3*time.Millisecond {
		t.Errorf("both took %s", got)
	}
	if got := all[0].written.Sub(all[0].made); got != time.Millisecond {
		t.Errorf("the first write came after %s", got)
	}
	if diff := cmp.Diff(2*time.Millisecond, between(all[:1])); diff != "" {
		t.Errorf("the first took another time (-want +got):\n%s", diff)
	}
}

func TestClaimsAreWaitedFor(t *testing.T) {
	client, events := fake.NewClientset(), apiwatch.NewFake()
	client.PrependWatchReactor("resourceclaims", clienttesting.DefaultWatchReactor(events, nil))
	s, err := watchClaims(t.Context(), client, claimNamespace)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	go func() {
		for version, tell := range []func(runtime.Object){events.Add, events.Modify, events.Delete} {
			c := claim("a", version > 0, version > 0)
			c.ResourceVersion = strconv.Itoa(11 + version)
			tell(c)
		}
	}()
	if _, err := s.allocated(t.Context(), []string{"a"}); err != nil {
		t.Error(err)
	}
	if err := s.gone(t.Context(), []string{"a"}); err != nil {
		t.Error(err)
	}
	// Neither the end of the time nor that of the watch is taken for an
	// allocation.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.allocated(ended, []string{"b"}); err == nil {
		t.Error("a claim that never was is allocated")
	}
	expired := apierrors.NewResourceExpired("too old").Status()
	events.Error(&expired)
	if _, err := s.allocated(t.Context(), []string{"b"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch that has ended: %v", err)
	}
}
