package claimstatus

import (
	"context"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	testDriver = "eks-hybrid-dra"
	testPool   = "dgx-0/eks-hybrid-dra"
)

// node is the writer of a node on which claim ns/claim-a is prepared. It has the
// device net1, which must be attached.
type node struct {
	*Writer
	t      *testing.T
	client *fake.Clientset
	record *claimstore.Record
}

func newNode(t *testing.T) *node {
	t.Helper()
	store, err := claimstore.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	client := fake.NewClientset()
	n := &node{Writer: New(testDriver, client, store), t: t, client: client, record: &claimstore.Record{
		Claim:   device.Claim{Namespace: "ns", Name: "claim-a", UID: "a"},
		Devices: []claimstore.Device{{Family: "vf", Request: "r0", Pool: testPool, Device: "net1", Occupies: []string{"pci-net1"}, Attach: true}},
	}}
	t.Cleanup(n.queue.ShutDown)
	n.save()
	return n
}

func (n *node) save() {
	n.t.Helper()
	if err := n.store.Save(n.record); err != nil {
		n.t.Fatal(err)
	}
}

// attach notes that net1 is in a pod.
func (n *node) attach() {
	n.t.Helper()
	sandbox := device.Sandbox{Pod: device.Pod{Namespace: "ns", Name: "pod-a", UID: "pod-a"}, ID: "sandbox-1"}
	attachment := device.Attachment{Interface: "net1", HardwareAddress: "02:00:00:00:00:01", IPs: []string{"10.0.0.5/24"}}
	n.record.Attach(sandbox, []claimstore.AttachedDevice{{Family: "vf", Device: "net1", Attachment: attachment}})
	n.save()
}

// oneAlignment is that of net1 with a GPU.
func oneAlignment() []claimstore.Alignment {
	return []claimstore.Alignment{{GPU: "gpu-0", GPUAddress: "0000:1b:00.0", VF: "net1", VFAddress: "0000:18:00.2", Relation: "PIX"}}
}

// claim is the claim as the API has it.
func (n *node) claim() *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim-a", UID: "a"}}
	claim.Status.Allocation = &resourceapi.AllocationResult{}
	claim.Status.Allocation.Devices.Results = []resourceapi.DeviceRequestAllocationResult{{Request: "r0", Driver: testDriver, Pool: testPool, Device: "net1"}}
	return claim
}

func (n *node) create(claim *resourceapi.ResourceClaim) {
	n.t.Helper()
	if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(n.t.Context(), claim, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// run lets the writer run until the test ends.
func (n *node) run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(n.t.Context())
	}()
	n.t.Cleanup(func() { <-done }) // the test's context is done by then
}

// write writes the claim's status once.
func (n *node) write(failure *attachFailure) {
	n.t.Helper()
	if err := n.Writer.write(n.t.Context(), "a", failure); err != nil {
		n.t.Fatal(err)
	}
}

// next writes what is first in the queue.
func (n *node) next() {
	n.t.Helper()
	if !n.writeNext(n.t.Context()) {
		n.t.Fatal("the queue has ended")
	}
}

// waitFor waits until the statuses of the claim's devices are so.
func (n *node) waitFor(so func([]resourceapi.AllocatedDeviceStatus) bool) (got []resourceapi.AllocatedDeviceStatus) {
	n.t.Helper()
	err := wait.PollUntilContextTimeout(n.t.Context(), time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		c, err := n.client.ResourceV1().ResourceClaims("ns").Get(ctx, "claim-a", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		got = c.Status.Devices
		return so(got), nil
	})
	if err != nil {
		n.t.Fatalf("never the expected status: %v: %+v", err, got)
	}
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
func (n *node) applies() int {
	count := 0
	for _, a := range n.client.Actions() {
		if a.Matches("patch", "resourceclaims") && a.GetSubresource() == "status" {
			count++
		}
	}
	return count
}
