package driver

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"
)

// statuses returns a writer of claim statuses that runs.
func (n *attachNode) statuses(d *Driver) *claimStatuses {
	c := d.statuses
	ctx := n.t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx)
	}()
	n.t.Cleanup(func() { <-done }) // the test's context is done by then
	return c
}

// deviceStatuses waits until the API has that many conditions in the statuses
// of the claim's devices.
func (n *attachNode) deviceStatuses(claim string, ok func([]resourceapi.AllocatedDeviceStatus) bool) []resourceapi.AllocatedDeviceStatus {
	n.t.Helper()
	var got []resourceapi.AllocatedDeviceStatus
	waitFor(n.t, "the expected status", func() bool {
		c, err := n.client.ResourceV1().ResourceClaims("ns").Get(n.t.Context(), "claim-"+claim, metav1.GetOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		got = c.Status.Devices
		return ok(got)
	})
	return got
}

func hasCondition(kind string) func([]resourceapi.AllocatedDeviceStatus) bool {
	return func(all []resourceapi.AllocatedDeviceStatus) bool {
		for _, s := range all {
			if s.Driver == testDriver && meta.IsStatusConditionTrue(s.Conditions, kind) {
				return true
			}
		}
		return false
	}
}

// applies counts what was written.
func (n *attachNode) applies() int {
	count := 0
	for _, a := range n.client.Actions() {
		if a.Matches("patch", "resourceclaims") && a.GetSubresource() == "status" {
			count++
		}
	}
	return count
}

func statusClaim(uid string, devices ...string) *resourceapi.ResourceClaim {
	claim := newClaim(uid, devices)
	claim.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "other.example.com", Pool: "p", Device: "d", Conditions: []metav1.Condition{{Type: "Ready", Status: "True"}}}}
	return claim
}

func TestStatusOfClaims(t *testing.T) {
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("")
	claim := statusClaim("a", "net1", "gpu-0", "net2")
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	statuses := n.statuses(d)
	s := sandboxOf(t, "sandbox-1", "pod-a")

	n.vfs.set(func(f *fakeVFs) { f.fail["net2"] = errors.New("link refused") })
	_, err := d.attachClaim(t.Context(), "a", s)
	statuses.failed(t.Context(), "a", err)
	got := n.deviceStatuses("a", hasCondition("AttachFailed"))
	byDevice := cmpopts.SortSlices(func(a, b resourceapi.AllocatedDeviceStatus) bool { return a.Device < b.Device })
	noTimes := cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")
	other := claim.Status.Devices[0]
	want := []resourceapi.AllocatedDeviceStatus{other, {Driver: testDriver, Pool: testPool, Device: "net2", Conditions: []metav1.Condition{
		{Type: "Ready", Status: "False", Reason: "NotAttached", Message: "attached to no pod"},
		{Type: "AttachFailed", Status: "True", Reason: "AttachError", Message: `device "net2" (request "r2"): link refused`},
	}}}
	if diff := cmp.Diff(want, got, byDevice, noTimes); diff != "" {
		t.Errorf("after a failure (-want +got):\n%s", diff)
	}

	n.vfs.set(func(f *fakeVFs) { delete(f.fail, "net2") })
	n.mustAttach(d, "a", s)
	statuses.attached(t.Context(), "a")
	got = n.deviceStatuses("a", hasCondition("Ready"))
	network := func(name string) *resourceapi.NetworkDeviceData {
		return &resourceapi.NetworkDeviceData{InterfaceName: name, HardwareAddress: "02:00:00:00:00:01", IPs: []string{"10.0.0.5/24"}}
	}
	ready := []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Attached", Message: "attached to pod ns/pod-a"}}
	want = []resourceapi.AllocatedDeviceStatus{
		other,
		{Driver: testDriver, Pool: testPool, Device: "net1", Conditions: ready, NetworkData: network("net1")},
		{Driver: testDriver, Pool: testPool, Device: "net2", Conditions: ready, NetworkData: network("net2")},
	}
	if diff := cmp.Diff(want, got, byDevice, noTimes); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
}

// What is there already is not written again, and the times of conditions stay.
func TestStatusIsWrittenOnce(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	claim := newClaim("a", []string{"net1"})
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	// Without being told: what is attached is written at every start.
	statuses := n.statuses(d)
	n.deviceStatuses("a", hasCondition("Ready"))
	before := n.applies()
	if err := statuses.write(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if got := n.applies() - before; got != 0 {
		t.Errorf("written %d more times", got)
	}

	// The condition is as it was, with another message.
	n.backdate("a")
	failure := &attachFailure{family: "vf", device: "net1", message: "pod ns/pod-b: pod ns/pod-a has it"}
	if err := statuses.write(t.Context(), "a", failure); err != nil {
		t.Fatal(err)
	}
	got := n.deviceStatuses("a", hasCondition("AttachFailed"))
	if was := meta.FindStatusCondition(got[0].Conditions, "Ready"); was == nil || was.Status != "True" || !was.LastTransitionTime.Equal(longAgo()) {
		t.Errorf("condition %v, want it ready since %v", was, longAgo())
	}
}

func longAgo() *metav1.Time {
	return &metav1.Time{Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// backdate sets the times of a claim's conditions.
func (n *attachNode) backdate(claim string) {
	n.t.Helper()
	claims := n.client.ResourceV1().ResourceClaims("ns")
	c, err := claims.Get(n.t.Context(), "claim-"+claim, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for i := range c.Status.Devices {
		for k := range c.Status.Devices[i].Conditions {
			c.Status.Devices[i].Conditions[k].LastTransitionTime = *longAgo()
		}
	}
	if _, err := claims.UpdateStatus(n.t.Context(), c, metav1.UpdateOptions{FieldManager: testDriver}); err != nil {
		n.t.Fatal(err)
	}
}

func TestStatusIsTriedAgain(t *testing.T) {
	for name, refusal := range map[string]error{
		"no answer": errors.New("no route to host"),
		"no permission": apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "claim-a", field.ErrorList{
			field.Forbidden(field.NewPath("status", "devices"), `requires resource="resourceclaims/driver"`),
		}),
	} {
		t.Run(name, func(t *testing.T) {
			n := newAttachNode(t, "net1")
			d := n.instance("")
			claim := newClaim("a", []string{"net1"})
			n.createClaim(claim)
			mustPrepare(t, d, claim)
			n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
			refused := false
			n.client.PrependReactor("patch", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
				if refused {
					return false, nil, nil
				}
				refused = true
				return true, nil, refusal
			})
			n.statuses(d)
			n.deviceStatuses("a", hasCondition("Ready"))
		})
	}
}

// The API server refuses an apply if the claim's parameters are not in the form
// that it would give them.
func TestStatusOfClaimThatCannotBeApplied(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	claim := statusClaim("a", "net1")
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	kind := resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind()
	n.client.PrependReactor("patch", "resourceclaims", failWith(apierrors.NewInvalid(kind, "claim-a", field.ErrorList{
		field.Invalid(field.NewPath("status", "allocation"), nil, "field cannot be modified once set"),
	})))
	c := newClaimStatuses(d)
	defer c.queue.ShutDown()
	s := sandboxOf(t, "sandbox-1", "pod-a")
	n.vfs.fail["net1"] = errors.New("link refused")
	_, err := d.attachClaim(t.Context(), "a", s)
	if err := c.write(t.Context(), "a", newAttachFailure(err)); err != nil {
		t.Fatal(err)
	}
	n.deviceStatuses("a", hasCondition("AttachFailed"))
	delete(n.vfs.fail, "net1")
	n.mustAttach(d, "a", s)
	if err := c.write(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	got := n.deviceStatuses("a", hasCondition("Ready"))
	if len(got) != 2 || got[0].Driver != "other.example.com" || len(got[1].Conditions) != 1 || got[1].NetworkData.InterfaceName != "net1" {
		t.Errorf("unexpected status: %+v", got)
	}
}

func TestStatusOfWhatIsGoneIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*attachNode, *Driver, *resourceapi.ResourceClaim){
		"claim deleted":       func(*attachNode, *Driver, *resourceapi.ResourceClaim) {},
		"another of its name": func(n *attachNode, _ *Driver, c *resourceapi.ResourceClaim) { c.UID = "b"; n.createClaim(c) },
		"deallocated": func(n *attachNode, _ *Driver, c *resourceapi.ResourceClaim) {
			c.Status.Allocation = nil
			n.createClaim(c)
		},
		"another device": func(n *attachNode, _ *Driver, c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].Device = "net9"
			n.createClaim(c)
		},
		"unprepared": func(n *attachNode, d *Driver, c *resourceapi.ResourceClaim) {
			n.createClaim(c)
			mustUnprepare(n.t, d, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newAttachNode(t, "net1")
			d := n.instance("")
			claim := newClaim("a", []string{"net1"})
			mustPrepare(t, d, claim)
			n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
			change(n, d, claim)
			c := newClaimStatuses(d)
			defer c.queue.ShutDown()
			c.attached(t.Context(), "a")
			if !c.writeNext(t.Context()) || n.applies() > 0 {
				t.Errorf("written %d times", n.applies())
			}
			if len(c.waiting) > 0 || c.queue.Len() > 0 {
				t.Errorf("still waiting: %v", c.waiting)
			}
		})
	}
}

// A silent API server does not fill the memory.
func TestStatusesThatWaitAreBounded(t *testing.T) {
	n := newAttachNode(t)
	c := newClaimStatuses(n.instance(""))
	defer c.queue.ShutDown()
	for i := range maxStatuses + 10 {
		c.failed(t.Context(), types.UID(strings.Repeat("x", i+1)), errors.New("x"))
	}
	if len(c.waiting) != maxStatuses || c.queue.Len() != maxStatuses {
		t.Errorf("%d wait, want %d", len(c.waiting), maxStatuses)
	}
}
