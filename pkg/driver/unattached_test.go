package driver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

func hasReason(reason string) func([]resourceapi.AllocatedDeviceStatus) bool {
	return func(all []resourceapi.AllocatedDeviceStatus) bool {
		return len(all) == 1 && len(all[0].Conditions) == 1 && all[0].Conditions[0].Reason == reason
	}
}

func TestClaimThatNoContainerUsesIsReported(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	claim := newClaim("a", []string{"net1"})
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	statuses := n.statuses(d)
	log := &strings.Builder{}
	ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(log))))
	lines := func() int {
		return strings.Count(log.String(), "No container has started with the devices of a claim yet")
	}

	before := d.reportUnattached(ctx, nil) // its sandbox is not there yet
	n.processes.pods["pod-a"] = true
	if before = d.reportUnattached(ctx, before); lines() > 0 {
		t.Errorf("reported although its pod has just begun: %s", log)
	}
	before = d.reportUnattached(ctx, before)
	before = d.reportUnattached(ctx, before)
	if lines() != 1 || !strings.Contains(log.String(), "claim-a") || !strings.Contains(log.String(), "pod-a") {
		t.Errorf("want one line with claim and pod, got %s", log)
	}
	got := n.deviceStatuses("a", hasReason("NotAttached"))
	want := []resourceapi.AllocatedDeviceStatus{{Driver: testDriver, Pool: testPool, Device: "net1", Conditions: []metav1.Condition{{
		Type: "Ready", Status: "False", Reason: "NotAttached",
		Message: "attached to no pod: no container of its pods has started with it yet. If their images are there and their init containers have ended, see that a container lists the claim in resources.claims",
	}}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}

	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	statuses.Attached(ctx, "a")
	n.deviceStatuses("a", hasReason("Attached"))
	if before = d.reportUnattached(ctx, before); len(before) > 0 || lines() != 1 {
		t.Errorf("still looked at: %v, %s", before, log)
	}
}

func TestClaimsThatAreNotReportedAsUnused(t *testing.T) {
	for name, change := range map[string]func(*attachNode){
		"its pod has ended":      func(n *attachNode) { n.processes.end("pod-a") },
		"its pod is another now": func(n *attachNode) { n.processes.end("pod-a"); n.processes.pods["pod-b"] = true },
		"the node was rebooted":  func(n *attachNode) { n.bootID = "boot-2" },
		"it has nothing to attach": func(n *attachNode) {
			claim := newClaim("b", []string{"gpu-0"})
			mustPrepare(n.t, n.instance("b"), claim)
			n.processes.end("pod-a")
			n.processes.pods["pod-b"] = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newAttachNode(t, "net1")
			claim := newClaim("a", []string{"net1"})
			claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "pod-b", UID: "pod-b"})
			d := n.instance("")
			mustPrepare(t, d, claim)
			n.processes.pods["pod-a"] = true
			before := d.reportUnattached(t.Context(), nil)
			change(n)
			d = n.instance("other")
			after := d.reportUnattached(t.Context(), before)
			if after["a"].told || after["b"].told {
				t.Errorf("reported: %v", after)
			}
		})
	}
}
