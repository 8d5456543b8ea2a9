package driver

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// hooks returns the hooks in the CDI spec of a family.
func (n *attachNode) hooks(family, claim string) []*cdispec.Hook {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.cdiDir(), testDriver+"_"+family+"_"+claim+".json"))
	if err != nil {
		n.t.Fatal(err)
	}
	var spec cdispec.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		n.t.Fatal(err)
	}
	for _, d := range spec.Devices {
		if len(d.ContainerEdits.Hooks) > 0 {
			n.t.Errorf("device %s has a hook of its own: it would run once for each device", d.Name)
		}
	}
	return spec.ContainerEdits.Hooks
}

func admin(r *resourceapi.DeviceRequestAllocationResult) { r.AdminAccess = ptr.To(true) }

func TestContainersWaitForTheirDevices(t *testing.T) {
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1", "gpu-0", "net2"}))
	want := []*cdispec.Hook{{
		HookName: "createRuntime", Path: "/opt/attach-hook",
		Args:    []string{"attach-hook", "--data-dir=" + n.dataDir(), "--claim=a", "--wait=1m0s"},
		Timeout: ptr.To(75),
	}}
	if diff := cmp.Diff(want, n.hooks("vf", "a")); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if got := n.hooks("gpu", "a"); len(got) > 0 {
		t.Errorf("GPUs have hooks: %v", got)
	}
	mustUnprepare(t, d, newClaim("a", nil))
	if left := n.files(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAttach(t *testing.T) {
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1", "gpu-0", "net2"}))
	s := sandboxOf(t, "sandbox-1", "pod-a")
	n.mustAttach(d, "a", s)
	r := n.record("a")
	if diff := cmp.Diff(map[string][]string{"sandbox-1": {"net1", "net2"}}, attachedTo(r)); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	want := device.Attachment{Interface: "net1", HardwareAddress: "02:00:00:00:00:01", IPs: []string{"10.0.0.5/24"}}
	if diff := cmp.Diff(want, r.Attached[0].Devices[0].Attachment); diff != "" {
		t.Errorf("attachment (-want +got):\n%s", diff)
	}

	// Again, by another container and by the next instance: nothing is moved.
	n.mustAttach(d, "a", s)
	n.mustAttach(n.instance("next"), "a", s)
	if n.vfs.moved() != 2 {
		t.Errorf("%d moves, want 2", n.vfs.moved())
	}

	// A repeated preparation keeps what is known.
	mustPrepare(t, d, newClaim("a", []string{"net1", "gpu-0", "net2"}))
	if diff := cmp.Diff(attachedTo(r), attachedTo(n.record("a"))); diff != "" {
		t.Errorf("after a repeated preparation (-want +got):\n%s", diff)
	}

	// One that does its work again leaves that to the next container.
	if err := os.RemoveAll(n.cdiDir()); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, newClaim("a", []string{"net1", "gpu-0", "net2"}))
	if got := attachedTo(n.record("a")); len(got) > 0 {
		t.Errorf("attached after another preparation: %v", got)
	}
	n.mustAttach(d, "a", s)
	if diff := cmp.Diff(attachedTo(r), attachedTo(n.record("a"))); diff != "" || n.vfs.moved() != 2 {
		t.Errorf("%d moves, attached again (-want +got):\n%s", n.vfs.moved(), diff)
	}

	// The pod gets another sandbox.
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-2", "pod-a"))
	if diff := cmp.Diff(map[string][]string{"sandbox-2": {"net1", "net2"}}, attachedTo(n.record("a"))); diff != "" {
		t.Errorf("in another sandbox (-want +got):\n%s", diff)
	}

	mustUnprepare(t, d, newClaim("a", nil))
	if got := n.vfs.where("net1"); got != "" {
		t.Errorf("still in %s", got)
	}
}

func TestAnotherBootHasNothingAttached(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	n.bootID = "boot-2"
	d = n.instance("")
	if _, err := d.attachClaim(t.Context(), "a", sandboxOf(t, "sandbox-2", "pod-a")); err == nil || !strings.Contains(err.Error(), "before this machine was started") {
		t.Errorf("before kubelet has had the claim prepared: %v", err)
	}
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	if got := attachedTo(n.record("a")); len(got) > 0 {
		t.Errorf("attached after a boot: %v", got)
	}
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-2", "pod-a"))
}

func TestAllOrNone(t *testing.T) {
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1", "net2"}))
	s := sandboxOf(t, "sandbox-1", "pod-a")
	n.vfs.fail["net2"] = errors.New("VLAN 5000 is too high")
	if _, err := d.attachClaim(t.Context(), "a", s); err == nil || !strings.Contains(err.Error(), `device "net2" (request "r1"): VLAN 5000 is too high`) {
		t.Errorf("want the device and the cause, got %v", err)
	}
	if got := n.vfs.where("net1"); got != "" {
		t.Errorf("net1 was left in %s", got)
	}
	if got := attachedTo(n.record("a")); len(got) > 0 {
		t.Errorf("in the record: %v", got)
	}

	// What a running container uses stays where it is.
	delete(n.vfs.fail, "net2")
	n.mustAttach(d, "a", s)
	n.vfs.fail["net2"] = errors.New("VLAN 5000 is too high")
	if _, err := d.attachClaim(t.Context(), "a", s); err == nil {
		t.Error("want an error")
	}
	if got := n.vfs.where("net1"); got != "sandbox-1" {
		t.Errorf("net1 was taken from a running pod")
	}
}

func TestRecordThatCannotBeSavedAttachesNothing(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	// A folder in the place of the file that is written next.
	if err := os.MkdirAll(filepath.Join(n.dataDir(), "claims", ".writing-a.json", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.attachClaim(t.Context(), "a", sandboxOf(t, "sandbox-1", "pod-a")); err == nil {
		t.Error("the record is saved: where does the store write?")
	}
	if got := n.vfs.where("net1"); got != "" {
		t.Errorf("net1 was left in %s", got)
	}
}

func TestNotAttached(t *testing.T) {
	for _, tc := range []struct {
		name  string
		claim func(*attachNode, *Driver)
		want  string
	}{
		{"unknown claim", func(*attachNode, *Driver) {}, "not prepared on this node"},
		{"device of another claim", func(n *attachNode, d *Driver) {
			mustPrepare(n.t, d, newClaim("a", []string{"net1"}))
			holding, err := d.store.Holder("pci-net1")
			if err != nil {
				n.t.Fatal(err)
			}
			holding.Claim.UID = "b"
			if err := d.store.Free("pci-net1", "a"); err != nil {
				n.t.Fatal(err)
			}
			if _, err := d.store.Take("pci-net1", *holding); err != nil {
				n.t.Fatal(err)
			}
		}, "another claim has it by now"},
		{"device in another pod", func(n *attachNode, d *Driver) {
			mustPrepare(n.t, d, newClaim("a", []string{"net1"}))
			n.mustAttach(d, "a", sandboxOf(n.t, "sandbox-0", "other"))
			n.vfs.living["sandbox-0"] = true
		}, "pod ns/other has it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newAttachNode(t, "net1")
			d := n.instance("")
			tc.claim(n, d)
			if _, err := d.attachClaim(t.Context(), "a", sandboxOf(t, "sandbox-1", "pod-a")); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want %q, got %v", tc.want, err)
			}
			if got := n.vfs.where("net1"); got == "sandbox-1" {
				t.Error("attached all the same")
			}
		})
	}
}

func TestAdminAccessAttachesNothing(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}, withResult(admin)))
	if got := n.hooks("vf", "a"); len(got) > 0 {
		t.Errorf("hooks: %v", got)
	}
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "pod-a"))
	if n.vfs.moved() > 0 {
		t.Error("an observer has moved a device")
	}
}

// A claim may ask for a device, and for a look at all devices, among them that
// one.
func TestWhoAlsoLooksAtItsDeviceHasItAllTheSame(t *testing.T) {
	for _, look := range []int{0, 1} {
		n := newAttachNode(t, "net1")
		d := n.instance("")
		mustPrepare(t, d, newClaim("a", []string{"net1", "net1"}, func(claim *resourceapi.ResourceClaim) {
			admin(&claim.Status.Allocation.Devices.Results[look])
		}))
		specs, err := os.ReadFile(filepath.Join(n.cdiDir(), testDriver+"_vf_a.json"))
		if err != nil || !strings.Contains(string(specs), "VF=1") || strings.Contains(string(specs), "looked-at") {
			t.Errorf("request %d only looks: %s, %v", look, specs, err)
		}
	}
}

// Nothing is taken from a pod that the API server has not told of.
func TestPodThatAttachesIsNoted(t *testing.T) {
	n := newAttachNode(t, "net1")
	d := n.instance("")
	claim := newClaim("a", []string{"net1"})
	mustPrepare(t, d, claim)
	n.mustAttach(d, "a", sandboxOf(t, "sandbox-1", "late"))
	n.processes.pods["late"] = true
	if err := unprepare(t, d, claim); err == nil || !strings.Contains(err.Error(), "late") {
		t.Errorf("unprepared under a running pod: %v", err)
	}
	holding, err := d.store.Holder("pci-net1")
	if err != nil || !cmp.Equal(holding.Pods, []types.UID{"pod-a", "late"}) {
		t.Errorf("pods in the holding: %v, %v", holding, err)
	}
	n.processes.end("late")
	mustUnprepare(t, d, claim)
	if got := n.vfs.where("net1"); got != "" {
		t.Errorf("still in %s", got)
	}
}

func TestAttachersNeedAHook(t *testing.T) {
	n := newAttachNode(t, "net1")
	metrics := n.instance("").options.Metrics
	_, err := New(t.Context(), Options{Families: []Family{n.vfs}, Metrics: metrics, DataDir: n.dataDir()})
	if err == nil || !strings.Contains(err.Error(), "no attach hook") {
		t.Errorf("want an error that names the hook, got %v", err)
	}
}
