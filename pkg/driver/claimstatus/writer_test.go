package claimstatus

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"
)

// What is there already is not written again, and the times of conditions stay.
func TestStatusIsWrittenOnce(t *testing.T) {
	n := newNode(t)
	n.create(n.claim())
	n.attach()
	// Without being told: what is attached is written at every start.
	n.run()
	n.waitFor(hasCondition(conditionReady))
	before := n.applies()
	n.write(nil)
	if got := n.applies() - before; got != 0 {
		t.Errorf("written %d more times", got)
	}

	// The condition is as it was, with another message.
	n.backdate()
	n.write(&attachFailure{family: "vf", device: "net1", message: "pod ns/pod-b: pod ns/pod-a has it"})
	got := n.waitFor(hasCondition(conditionAttachFailed))
	if was := meta.FindStatusCondition(got[0].Conditions, conditionReady); was == nil || was.Status != "True" || !was.LastTransitionTime.Equal(longAgo()) {
		t.Errorf("condition %v, want it ready since %v", was, longAgo())
	}
}

func longAgo() *metav1.Time {
	return &metav1.Time{Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// backdate sets the times of the claim's conditions.
func (n *node) backdate() {
	n.t.Helper()
	claims := n.client.ResourceV1().ResourceClaims("ns")
	c, err := claims.Get(n.t.Context(), "claim-a", metav1.GetOptions{})
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
			n := newNode(t)
			n.create(n.claim())
			n.attach()
			refused := false
			n.client.PrependReactor("patch", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
				if refused {
					return false, nil, nil
				}
				refused = true
				return true, nil, refusal
			})
			n.run()
			n.waitFor(hasCondition(conditionReady))
		})
	}
}

// The API server refuses an apply if the claim's parameters are not in the form
// that it would give them.
func TestStatusOfClaimThatCannotBeApplied(t *testing.T) {
	n := newNode(t)
	claim := n.claim()
	claim.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "other.example.com", Pool: "p", Device: "d", Conditions: []metav1.Condition{{Type: "Ready", Status: "True"}}}}
	n.create(claim)
	kind := resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind()
	refusal := apierrors.NewInvalid(kind, "claim-a", field.ErrorList{
		field.Invalid(field.NewPath("status", "allocation"), nil, "field cannot be modified once set"),
	})
	n.client.PrependReactor("patch", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refusal })
	n.write(newAttachFailure(&DeviceError{Device: n.record.Devices[0], Err: errors.New("link refused")}))
	got := n.waitFor(hasCondition(conditionAttachFailed))
	if message := got[1].Conditions[1].Message; message != `device "net1" (request "r0"): link refused` {
		t.Errorf("message %q", message)
	}
	n.attach()
	n.write(nil)
	got = n.waitFor(hasCondition(conditionReady))
	if len(got) != 2 || got[0].Driver != "other.example.com" || len(got[1].Conditions) != 1 || got[1].NetworkData.InterfaceName != "net1" {
		t.Errorf("unexpected status: %+v", got)
	}
}

func TestStatusOfWhatIsGoneIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*node, *resourceapi.ResourceClaim){
		"claim deleted":       func(*node, *resourceapi.ResourceClaim) {},
		"another of its name": func(n *node, c *resourceapi.ResourceClaim) { c.UID = "b"; n.create(c) },
		"deallocated": func(n *node, c *resourceapi.ResourceClaim) {
			c.Status.Allocation = nil
			n.create(c)
		},
		"another device": func(n *node, c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].Device = "net9"
			n.create(c)
		},
		"unprepared": func(n *node, c *resourceapi.ResourceClaim) {
			n.create(c)
			if err := n.store.Delete("a"); err != nil {
				n.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.attach()
			change(n, n.claim())
			n.Attached(t.Context(), "a")
			n.next()
			if n.applies() > 0 {
				t.Errorf("written %d times", n.applies())
			}
			if len(n.waiting) > 0 || n.queue.Len() > 0 {
				t.Errorf("still waiting: %v", n.waiting)
			}
		})
	}
}

// A silent API server does not fill the memory.
func TestStatusesThatWaitAreBounded(t *testing.T) {
	n := newNode(t)
	for i := range maxStatuses + 10 {
		n.Failed(t.Context(), types.UID(strings.Repeat("x", i+1)), errors.New("x"))
	}
	if len(n.waiting) != maxStatuses || n.queue.Len() != maxStatuses {
		t.Errorf("%d wait, want %d", len(n.waiting), maxStatuses)
	}
}

// Why the last try failed is worth more than that nothing has started, also
// after a restart of the plugin.
func TestUnusedDoesNotHideAFailure(t *testing.T) {
	n := newNode(t)
	n.create(n.claim())
	n.Failed(t.Context(), "a", errors.New("link refused"))
	n.Unused(t.Context(), "a")
	if got := n.waiting["a"]; got == nil || got.unused {
		t.Errorf("%v waits to be written, want the failure", got)
	}
	if n.next(); len(n.waiting) > 0 {
		t.Fatal("the failure is not written")
	}
	want := n.waitFor(hasCondition(conditionAttachFailed))
	n.Unused(t.Context(), "a")
	n.next()
	if diff := cmp.Diff(want, n.waitFor(hasCondition(conditionAttachFailed))); diff != "" {
		t.Errorf("the status is no longer that of the failure (-want +got):\n%s", diff)
	}

	// Attached in the moment in which the look found that it is not.
	n.attach()
	n.Attached(t.Context(), "a")
	n.Unused(t.Context(), "a")
	n.next()
	n.waitFor(func(all []resourceapi.AllocatedDeviceStatus) bool {
		return len(all) == 1 && len(all[0].Conditions) == 1 && all[0].Conditions[0].Reason == reasonAttached
	})
}

// The API server may keep data in another form, or lose it.
func TestDataIsComparedByWhatItSays(t *testing.T) {
	n := newNode(t)
	n.record.Alignment = oneAlignment()
	n.save()
	claim := n.claim()
	n.create(claim)
	n.write(nil)
	claim.Status.Devices = n.waitFor(func(all []resourceapi.AllocatedDeviceStatus) bool { return len(all) == 1 })
	same := func() bool { return hasStatuses(claim, n.deviceStatuses(n.record, nil, claim)) }
	claim.Status.Devices[0].Data.Raw = []byte(`{"kind":"DeviceAlignment", "alignment":[{"relation":"PIX","vf":"0000:18:00.2","gpu":"0000:1b:00.0"}],"apiVersion":"resource.eks-hybrid-dra/v1alpha1"}`)
	if !same() {
		t.Error("the same data in another form is written again")
	}
	claim.Status.Devices[0].Data = nil
	if same() {
		t.Error("lost data is not written again")
	}
}

// Of a claim that is still to be attached nothing is said at the start: it could
// wipe out why the last try failed.
func TestClaimsWithNews(t *testing.T) {
	n := newNode(t)
	n.record.Alignment = oneAlignment()
	if hasNews(n.record) {
		t.Error("a claim that is still to be attached has news")
	}
	if n.attach(); !hasNews(n.record) {
		t.Error("a claim that is attached has none")
	}
	n.record.Attached, n.record.Devices[0].Attach = nil, false
	if !hasNews(n.record) {
		t.Error("a claim with nothing to attach has no news of its alignment")
	}
}
