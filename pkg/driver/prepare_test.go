package driver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/runtime-spec/specs-go"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

const gpuConfig = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig"}`

func TestContainerGetsWhatItsClaimWasAllocated(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1", "gpu-2")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0", "gpu-2"}, withConfig(resourceapi.AllocationConfigSourceClaim, gpuConfig, "r0"))
	devices := mustPrepare(t, d, claim)

	// A container runtime with its own reader of CDI specs is the judge.
	cache, err := cdi.NewCache(cdi.WithSpecDirs(n.cdiDir()))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, dev := range devices {
		ids = append(ids, dev.CDIDeviceIDs...)
		if dev.PoolName != testPool || len(dev.Requests) != 1 || dev.Metadata.Attributes["type"].StringValue == nil {
			t.Errorf("unexpected answer to kubelet: %+v", dev)
		}
	}
	container := &ocispec.Spec{}
	if missing, err := cache.InjectDevices(container, ids...); err != nil {
		t.Fatalf("missing %v: %v", missing, err)
	}
	if diff := cmp.Diff([]string{"COMMON=1", "DEVICE_gpu-0=1", "DEVICE_gpu-2=1"}, container.Process.Env); diff != "" {
		t.Errorf("unexpected environment (-want +got):\n%s", diff)
	}

	if again := mustPrepare(t, d, claim); !cmp.Equal(devices, again) || n.gpus.prepares != 2 {
		t.Errorf("preparing again changed something: %v, %d calls", again, n.gpus.prepares)
	}
	for range 2 {
		mustUnprepare(t, d, claim)
	}
	if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
		t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
	}
}

func TestBadClaims(t *testing.T) {
	for name, test := range map[string]struct {
		claim *resourceapi.ResourceClaim
		say   []string
	}{
		"wrong pool": {
			newClaim("a", []string{"gpu-0"}, withResult(func(r *resourceapi.DeviceRequestAllocationResult) { r.Pool = "dgx-1/eks-hybrid-dra" })),
			[]string{"ns/claim-a", `request "r0"`, `"gpu-0"`, `"dgx-1/eks-hybrid-dra"`, testPool},
		},
		"name too long for the node": {
			newClaim("a", []string{"gpu-0"}, func(claim *resourceapi.ResourceClaim) { claim.Name = strings.Repeat("a", 253) }),
			[]string{"metadata.name is 1 characters too long", "254"},
		},
		"device not there": {
			newClaim("a", []string{"gpu-9"}),
			[]string{"ns/claim-a", `"gpu-9"`, "not on this node", "delete the pod"},
		},
		"another driver's claim": {
			newClaim("a", []string{"gpu-0"}, withResult(func(r *resourceapi.DeviceRequestAllocationResult) { r.Driver = "gpu.example.com" })),
			[]string{"ns/claim-a", "no device of this driver"},
		},
		"unknown field in the claim's configuration": {
			newClaim("a", []string{"gpu-0"}, withConfig(resourceapi.AllocationConfigSourceClaim, strings.Replace(gpuConfig, "}", `,"sharng":1}`, 1))),
			[]string{"ns/claim-a", "config[0].opaque.parameters (FromClaim)", `unknown field "sharng"`},
		},
		"unknown kind in the class's configuration": {
			newClaim("a", []string{"gpu-0"}, withConfig(resourceapi.AllocationConfigSourceClass, strings.Replace(gpuConfig, "GpuConfig", "Gpu", 1))),
			[]string{"config[0].opaque.parameters (FromClass)", `"Gpu"`, "GpuConfig"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "gpu-0")
			err := prepare(t, n.start(), test.claim).Err
			if err == nil {
				t.Fatal("prepared")
			}
			for _, want := range test.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
			if files := n.files(); len(files) > 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}

func TestResultsOfOtherDriversAreLeftAlone(t *testing.T) {
	n := newNode(t, "gpu-0")
	claim := newClaim("a", []string{"gpu-0", "nic-3"})
	claim.Status.Allocation.Devices.Results[1].Driver = "nic.example.com"
	devices := mustPrepare(t, n.start(), claim)
	if len(devices) != 1 || devices[0].DeviceName != "gpu-0" {
		t.Errorf("unexpected devices: %v", devices)
	}
}

func TestFailureUndoesWhatTheClaimHad(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	n.gpus.fail["gpu-1"] = errors.New("fell off the bus")
	claim := newClaim("a", []string{"gpu-0", "gpu-1"})
	err := prepare(t, d, claim).Err
	if err == nil || !strings.Contains(err.Error(), `device "gpu-1" (request "r1"): fell off the bus`) {
		t.Fatalf("want an error that names device and cause, got %v", err)
	}
	if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
		t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
	}
	mustPrepare(t, d, newClaim("b", []string{"gpu-0"}))
}

func TestCDIFolderThatCannotBeWritten(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	if err := os.WriteFile(n.cdiDir(), []byte("a file, not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := prepare(t, d, newClaim("a", []string{"gpu-0"})).Err
	if err == nil || !strings.Contains(err.Error(), n.cdiDir()) || !strings.Contains(err.Error(), "ns/claim-a") {
		t.Fatalf("want an error that names claim and folder, got %v", err)
	}
	if err := os.Remove(n.cdiDir()); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, newClaim("b", []string{"gpu-0"}))
}

// A claim that an earlier release prepared, whatever its name, can be given
// back: its pod would never go otherwise.
func TestUnprepareOfAClaimWithALongName(t *testing.T) {
	n := newNode(t, "gpu-0")
	claim := newClaim("a", []string{"gpu-0"}, func(claim *resourceapi.ResourceClaim) { claim.Name = strings.Repeat("a", 253) })
	mustUnprepare(t, n.start(), claim)
	files := n.start().metadata.Operations()
	if err := files.RemoveAll(filepath.Join(n.dir, claim.Namespace+"_"+claim.Name)); err != nil {
		t.Errorf("the helper's own clean-up fails: %v", err)
	}
}

// A device that the scheduler gave away while the last pod's containers still
// run is waited for, and never shared.
func TestWaitsForRelease(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute
	one, two := n.start(), n.start() // side by side during an update
	for name, releaser := range map[string]*Driver{"same instance": one, "another instance": two} {
		t.Run(name, func(t *testing.T) {
			old, next := newClaim("old", []string{"gpu-0"}), newClaim("next", []string{"gpu-0"})
			mustPrepare(t, one, old)
			if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), old, createOptions); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := n.client.ResourceV1().ResourceClaims("ns").Delete(t.Context(), old.Name, deleteOptions); err != nil {
					t.Error(err)
				}
			}()
			done := make(chan error, 1)
			go func() { done <- prepare(t, one, next).Err }()
			waitForAction(t, n.client, "get", "resourceclaims")
			select {
			case err := <-done:
				t.Fatalf("did not wait: %v", err)
			default:
			}
			mustUnprepare(t, releaser, old)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if n.gpus.ready["gpu-0"] != "next" {
				t.Errorf("gpu-0 is %s's", n.gpus.ready["gpu-0"])
			}
			mustUnprepare(t, one, next)
			n.client.ClearActions()
		})
	}
}

func TestGivesUpWaitingWithTheHoldersName(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	holder := newClaim("holder", []string{"gpu-1"})
	mustPrepare(t, d, holder)
	if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), holder, createOptions); err != nil {
		t.Fatal(err)
	}
	err := prepare(t, d, newClaim("next", []string{"gpu-0", "gpu-1"})).Err
	if err == nil || !strings.Contains(err.Error(), `device "gpu-1" is still prepared for claim ns/claim-holder:holder`) {
		t.Fatalf("want an error that names device and holder, got %v", err)
	}
	mustPrepare(t, d, newClaim("third", []string{"gpu-0"})) // not kept by the one that gave up
}

// The holder's claim is gone from the API. Its device is taken over once, and
// only once, no process of its pod is left.
func TestTakesOverFromAnAbandonedClaim(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute
	d := n.start()
	n.processes.pods["pod-old"] = true
	mustPrepare(t, d, newClaim("old", []string{"gpu-0"}))
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(newClaim("old", nil))); released || err != nil {
		t.Fatalf("released while its pod runs: %v, %v", released, err)
	}
	done := make(chan error, 1)
	go func() { done <- prepare(t, d, newClaim("next", []string{"gpu-0"})).Err }()
	waitForAction(t, n.client, "get", "resourceclaims")
	n.processes.end("pod-old")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSilentAPIReleasesNothing(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	n.client.PrependReactor("*", "*", failWith(errors.New("connection refused")))
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); released || err == nil {
		t.Errorf("released %v, error %v", released, err)
	}
	mustUnprepare(t, d, claim) // needs no API
	if files := n.files(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestAdminAccessNeitherBlocksNorFrees(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	admin := func(r *resourceapi.DeviceRequestAllocationResult) { r.AdminAccess = ptr.To(true) }
	user, early, late := newClaim("user", []string{"gpu-0"}), newClaim("early", []string{"gpu-0"}, withResult(admin)), newClaim("late", []string{"gpu-0"}, withResult(admin))
	if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), user, createOptions); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, early)
	mustPrepare(t, d, user)
	mustPrepare(t, d, late)
	mustUnprepare(t, d, early)
	mustUnprepare(t, d, late)
	if err := prepare(t, d, newClaim("other", []string{"gpu-0"})).Err; err == nil {
		t.Error("the end of an admin's claim freed the user's device")
	}
	mustUnprepare(t, d, user)
	if files := n.files(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// Many claims that all want the same devices, on two instances: never two at
// once (the family checks), and all get their turn.
func TestManyClaimsAtOnce(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1", "gpu-2", "gpu-3")
	n.wait = time.Minute
	instances := []*Driver{n.start(), n.start()}
	var wg sync.WaitGroup
	for i := range 16 {
		d := instances[i%2]
		claim := newClaim(string(rune('a'+i)), []string{n.gpus.devices[i%4].Name, n.gpus.devices[(i+1)%4].Name})
		if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), claim, createOptions); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := prepare(t, d, claim).Err; err != nil {
				t.Error(err)
				return
			}
			mustUnprepare(t, instances[(i/2)%2], claim)
		})
	}
	wg.Wait()
	if files := n.files(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestSameClaimTwiceAtOnce(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute
	instances := []*Driver{n.start(), n.start()}
	claim := newClaim("a", []string{"gpu-0"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := prepare(t, instances[i%2], claim).Err; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n.gpus.prepares != 1 {
		t.Errorf("the family was asked %d times", n.gpus.prepares)
	}
}

// A claim that was deallocated and allocated anew, while kubelet had lost track
// of it, gives back what it had, but not from under a pod that still runs.
func TestClaimThatWasAllocatedAnew(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	n.processes.pods["pod-a"] = true
	again := newClaim("a", []string{"gpu-1"})
	n.createClaim(again)
	if err := prepare(t, d, again).Err; err == nil || !strings.Contains(err.Error(), "gpu-0") {
		t.Fatalf("want to hear that gpu-0 is still in use, got %v", err)
	}
	n.processes.end("pod-a")
	mustPrepare(t, d, again)
	mustPrepare(t, d, newClaim("b", []string{"gpu-0"})) // free again
	mustUnprepare(t, d, again)
}

// Kubelet has the claims of force-deleted pods unprepared once a minute, also
// while their containers still run.
func TestUnprepareTakesNothingFromAPodThatStillRuns(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	n.processes.pods["pod-a"] = true
	if err := unprepare(t, d, newClaim("a", nil)); err == nil || !strings.Contains(err.Error(), "ns/claim-a") || !strings.Contains(err.Error(), "pod-a") {
		t.Errorf("want to hear that pod-a still uses claim ns/claim-a, got %v", err)
	}
	if err := prepare(t, d, newClaim("b", []string{"gpu-0"})).Err; err == nil {
		t.Error("the device was given to another claim while pod-a used it")
	}
	n.processes.end("pod-a")
	mustUnprepare(t, d, newClaim("a", nil))
	mustPrepare(t, d, newClaim("b", []string{"gpu-0"}))
}

func TestUnprepareOfAnUnknownClaim(t *testing.T) {
	n := newNode(t, "gpu-0")
	mustUnprepare(t, n.start(), newClaim("never-seen", nil))
}

func TestPodsOfAClaimAreNoted(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
	if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), claim, createOptions); err != nil {
		t.Fatal(err)
	}
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); released || err != nil {
		t.Fatalf("released %v, %v", released, err)
	}
	record, err := d.store.Load("a")
	if err != nil || !cmp.Equal(record.Pods, []types.UID{"pod-a", "pod-second"}) {
		t.Errorf("pods of the claim: %v, %v", record, err)
	}
}
