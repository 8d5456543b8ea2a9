package driver

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstatus"
)

// statuses returns a writer of claim statuses that runs.
func (n *attachNode) statuses(d *Driver) *claimstatus.Writer {
	c := d.statuses
	ctx := n.t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
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
	statuses.Failed(t.Context(), "a", err)
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
	statuses.Attached(t.Context(), "a")
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
