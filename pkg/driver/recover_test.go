package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// createClaim puts the claim into the API, so that nobody takes it for
// abandoned.
func (n *node) createClaim(claim *resourceapi.ResourceClaim) {
	n.t.Helper()
	if _, err := n.client.ResourceV1().ResourceClaims(claim.Namespace).Create(n.t.Context(), claim, createOptions); err != nil {
		n.t.Fatal(err)
	}
}

// What can happen to the node between two calls of kubelet. Afterwards a claim
// that was prepared still has its device, nobody else can get it, and it can
// be given back.
func TestClaimSurvives(t *testing.T) {
	write := func(content string, path ...string) func(*node) {
		return func(n *node) {
			file := filepath.Join(append([]string{n.dir}, path...)...)
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	remove := func(path ...string) func(*node) {
		return func(n *node) {
			if err := os.RemoveAll(filepath.Join(append([]string{n.dir}, path...)...)); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	for name, happen := range map[string]func(*node){
		"a restart": func(*node) {},
		"a reboot": func(n *node) {
			n.bootID = "boot-2"
			n.gpus.ready = map[string]types.UID{}
			remove("cdi")(n)
		},
		"an empty record":      write("", "data", "claims", "a.json"),
		"a truncated record":   write(`{"version":1,"claim":{"name`, "data", "claims", "a.json"),
		"a lost record":        remove("data", "claims", "a.json"),
		"an empty holding":     write("", "data", "devices", "pci-gpu-0.json"),
		"a lost holding":       remove("data", "devices", "pci-gpu-0.json"),
		"a lost CDI spec":      remove("cdi"),
		"an interrupted write": write("{", "data", "claims", ".writing-a.json"),
		"an interrupted spec":  write("{", "cdi", ".eks-hybrid-dra_gpu_a.json.tmp"),
		"the device falling off": func(n *node) {
			n.gpus.devices = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "gpu-0", "gpu-1")
			claim := newClaim("a", []string{"gpu-0"})
			n.createClaim(claim)
			before := mustPrepare(t, n.start(), claim)

			happen(n)
			d := n.start()
			if err := prepare(t, d, newClaim("thief", []string{"gpu-0"})).Err; err == nil {
				t.Error("another claim got the device")
			}
			if len(n.gpus.devices) > 0 {
				after := mustPrepare(t, d, claim)
				if len(after) != 1 || after[0].CDIDeviceIDs[0] != before[0].CDIDeviceIDs[0] {
					t.Errorf("kubelet is told something else: %v", after)
				}
				if !d.cdi.Exists("gpu", "a") {
					t.Error("no CDI spec: containers could not start")
				}
			}
			mustUnprepare(t, d, claim)
			if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
				t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
			}
		})
	}
}

// A prepare that was killed half-way has no record. Kubelet asks again, or
// unprepares, or the claim is gone from the API altogether.
func TestInterruptedPrepare(t *testing.T) {
	for name, finish := range map[string]func(*testing.T, *Driver, *resourceapi.ResourceClaim){
		"prepared again": func(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) {
			mustPrepare(t, d, claim)
			mustUnprepare(t, d, claim)
		},
		"unprepared": mustUnprepare,
		"abandoned": func(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) {
			if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); !released || err != nil {
				t.Errorf("released %v, %v", released, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "gpu-0")
			claim := newClaim("a", []string{"gpu-0"})
			mustPrepare(t, n.start(), claim)
			if err := os.Remove(filepath.Join(n.dir, "data", "claims", "a.json")); err != nil {
				t.Fatal(err)
			}
			finish(t, n.start(), claim)
			if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
				t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
			}
		})
	}
}

// An unprepare that was killed after it gave the device back must not, when it
// is repeated, undo what the next claim has done with it.
func TestRepeatedUnprepareLeavesTheNextClaimAlone(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	old, next := newClaim("old", []string{"gpu-0"}), newClaim("next", []string{"gpu-0"})
	mustPrepare(t, d, old)
	if err := n.gpus.Release(t.Context(), device.Grant{Device: "gpu-0", Claim: claimRef(old)}); err != nil {
		t.Fatal(err)
	}
	if err := d.store.Free("pci-gpu-0", "old"); err != nil {
		t.Fatal(err)
	}
	n.createClaim(next)
	mustPrepare(t, d, next)
	mustUnprepare(t, n.start(), old)
	if n.gpus.ready["gpu-0"] != "next" {
		t.Errorf("gpu-0 is %q's", n.gpus.ready["gpu-0"])
	}
	mustUnprepare(t, d, next)
	if files := n.files(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestUnreadableStateIsNoCrashLoop(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.start()
	for _, path := range []string{"data/claims/x.json", "data/devices/pci-gpu-0.json"} {
		if err := os.WriteFile(filepath.Join(n.dir, path), []byte("\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustPrepare(t, n.start(), newClaim("a", []string{"gpu-0"}))
	aside, err := os.ReadDir(filepath.Join(n.dir, "data", "unreadable"))
	if err != nil || len(aside) != 2 || !strings.HasPrefix(aside[1].Name(), "x.json.") {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

// An API server that takes questions and never answers must not keep kubelet
// from giving the device back.
func TestSilentAPIDelaysNoUnprepare(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	asked, answer := make(chan struct{}), make(chan struct{})
	n.client.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		close(asked)
		<-answer
		return true, nil, errors.New("connection lost")
	})
	done := make(chan error, 1)
	go func() {
		_, err := d.releaseIfAbandoned(t.Context(), claimRef(claim))
		done <- err
	}()
	<-asked
	mustUnprepare(t, d, claim)
	close(answer)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("error %v", err)
	}
}

// The record that named the pods is lost. A pod that still runs keeps its
// device all the same.
func TestLostRecordDoesNotTakeADeviceFromARunningPod(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.processes.pods["pod-a"] = true
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, n.start(), claim)
	if err := os.WriteFile(filepath.Join(n.dir, "data", "claims", "a.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := n.start()
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); released || err != nil {
		t.Fatalf("released %v, %v", released, err)
	}
	n.processes.end("pod-a")
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); !released || err != nil {
		t.Errorf("released %v, %v", released, err)
	}
}

// The kubeletplugin helper names metadata folders after claims, and a claim may
// have had a namesake.
func TestMetadataOfANamesakeStays(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	old := newClaim("old", []string{"gpu-0"})
	mustPrepare(t, d, old)
	file := d.metadata.Path(claimRef(old), "r0")
	for _, test := range []struct {
		uid   string
		stays bool
	}{{"next", true}, {"old", false}} {
		files := d.metadata.Operations()
		if err := files.WriteFile(file, []byte(`{"metadata":{"uid":"`+test.uid+`"}}{}`), 0o600); err != nil {
			t.Fatal(err)
		}
		mustUnprepare(t, d, old)
		if err := files.RemoveAll(filepath.Dir(filepath.Dir(file))); err != nil { // as the helper does
			t.Fatal(err)
		}
		if _, err := os.Stat(file); (err == nil) != test.stays {
			t.Errorf("metadata of %s: %v", test.uid, err)
		}
	}
}

// Two claims of one name, the first of which is still to be unprepared, have
// different requests.
func TestMetadataOfANamesakeWithOtherRequestsStays(t *testing.T) {
	for first, second := range map[string]string{"r0": "s0", "s0": "r0"} {
		n := newNode(t, "gpu-0")
		d := n.start()
		old := newClaim("old", []string{"gpu-0"})
		mustPrepare(t, d, old)
		folder := filepath.Dir(filepath.Dir(d.metadata.Path(claimRef(old), first)))
		for request, uid := range map[string]string{first: "old", second: "next"} {
			file := d.metadata.Path(claimRef(old), request)
			if err := d.metadata.Operations().WriteFile(file, []byte(`{"metadata":{"uid":"`+uid+`"}}{}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		mustUnprepare(t, d, old)
		entries, err := os.ReadDir(folder)
		if err != nil || len(entries) != 1 || entries[0].Name() != second {
			t.Errorf("want the folder of request %s, got %v, %v", second, entries, err)
		}
	}
}

func TestRecordWithoutAnAnswerIsMadeAnew(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	before := mustPrepare(t, d, claim)
	record, err := d.store.Load("a")
	if err != nil {
		t.Fatal(err)
	}
	record.Devices[0].CDIDeviceIDs, record.Devices[0].Attributes = nil, nil
	if err := d.store.Save(record); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, mustPrepare(t, d, claim)); diff != "" {
		t.Errorf("kubelet is told something else (-before +after):\n%s", diff)
	}
}

// The API server is silent at the first look; the next one finds that the claim
// is gone.
func TestAbandonedClaimsAreLookedForAgain(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	gone, stays := newClaim("gone", []string{"gpu-0"}), newClaim("stays", []string{"gpu-1"})
	mustPrepare(t, d, gone)
	mustPrepare(t, d, stays)
	n.createClaim(stays)
	var asked atomic.Int32
	n.client.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		if asked.Add(1) <= 4 {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.releaseAbandoned(ctx, time.Millisecond)
	}()
	waitFor(t, "released", func() bool {
		record, err := d.store.Load("gone")
		return err == nil && record == nil
	})
	cancel()
	<-done
	if asked.Load() <= 4 {
		t.Errorf("released after %d answers, all of them errors", asked.Load())
	}
	if record, err := d.store.Load("stays"); err != nil || record == nil {
		t.Errorf("the claim that is there was released: %v, %v", record, err)
	}
}

// After a reboot a GPU has failed, and those after it have other names. Each
// claim gets the GPU that its device is now, though another claim had that one
// before, and the one whose device is gone keeps nobody waiting.
func TestDevicesThatAreOthersAfterAReboot(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1", "gpu-2")
	d := n.start()
	claims := map[string]*resourceapi.ResourceClaim{}
	for _, name := range []string{"gpu-0", "gpu-1", "gpu-2"} {
		claims[name] = newClaim("of-"+name, []string{name})
		n.createClaim(claims[name])
		mustPrepare(t, d, claims[name])
	}
	n.bootID, n.gpus.ready = "boot-2", map[string]types.UID{}
	n.gpus.devices = n.gpus.devices[:2]
	n.gpus.devices[0].Occupies, n.gpus.devices[1].Occupies = []string{"pci-gpu-1"}, []string{"pci-gpu-2"}
	d = n.start()
	if err := prepare(t, d, claims["gpu-2"]).Err; err == nil || !strings.Contains(err.Error(), "not on this node") {
		t.Errorf("error %v", err)
	}
	n.start() // a restart takes nothing back
	mustPrepare(t, d, claims["gpu-1"])
	mustPrepare(t, d, claims["gpu-0"])
	for thing, want := range map[string]string{"pci-gpu-0": "", "pci-gpu-1": "of-gpu-0", "pci-gpu-2": "of-gpu-1"} {
		if got := n.holder(d, thing); got != want {
			t.Errorf("%s is held by %q, want %q", thing, got, want)
		}
	}
	for _, claim := range claims {
		mustUnprepare(t, d, claim)
	}
	if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
		t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
	}
}

// The state cannot be put in order at the start, as on a full disk. What is
// prepared can be given back, nothing is prepared, and it goes on by itself.
func TestStateThatCannotBeRecoveredYet(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	kept, ended, next := newClaim("kept", []string{"gpu-0"}), newClaim("ended", []string{"gpu-1"}), newClaim("next", []string{"gpu-1"})
	for _, claim := range []*resourceapi.ResourceClaim{kept, ended, next} {
		n.createClaim(claim)
	}
	d := n.start()
	mustPrepare(t, d, kept)
	mustPrepare(t, d, ended)
	if err := os.Remove(filepath.Join(n.dir, "data", "devices", "pci-gpu-0.json")); err != nil {
		t.Fatal(err)
	}
	// Not even root puts files into a folder that is none.
	if err := os.WriteFile(filepath.Join(n.dir, "data", "claims", "broken.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(n.dir, "data", "unreadable")
	if err := errors.Join(os.RemoveAll(aside), os.WriteFile(aside, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	d = n.start()
	if err := prepare(t, d, next).Err; err == nil || !strings.Contains(err.Error(), "recover the state in "+d.options.DataDir) {
		t.Errorf("error %v", err)
	}
	mustUnprepare(t, d, ended)
	if err := os.Remove(aside); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, next)
	if got := n.holder(d, "pci-gpu-0"); got != "kept" {
		t.Errorf("gpu-0 is held by %q", got)
	}
}

// Metadata files are written while somebody looks for such that are of no claim.
func TestMetadataIsWrittenWhileStraysAreRemoved(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute // for the claim, which the other side works on too
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				d.removeStrays(t.Context())
			}
		}
	}()
	defer func() {
		close(stop)
		<-done
	}()
	files := d.metadata.Operations()
	file := d.metadata.Path(claimRef(claim), "r0")
	for range 500 { // as the helper does
		if err := errors.Join(files.MkdirAll(filepath.Dir(file), 0o755), files.WriteFile(file, []byte(`{"metadata":{"uid":"a"}}`), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Dir(filepath.Dir(file))); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			t.Fatal(err)
		}
	}
}

// What a claim that is gone has left is removed, whenever it came.
func TestStraysAreLookedForAgain(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute // for the claim, which the other side works on too
	d := n.start()
	claim := newClaim("stays", []string{"gpu-0"})
	n.createClaim(claim)
	mustPrepare(t, d, claim)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.releaseAbandoned(ctx, time.Millisecond)
	}()
	defer func() {
		cancel()
		<-done
	}()
	before := n.files()
	for range 2 {
		metadata := d.metadata.Path(device.Claim{Namespace: "ns", Name: "gone"}, "r0")
		spec := filepath.Join(n.cdiDir(), "eks-hybrid-dra_metadata_gone_r0.json")
		if err := errors.Join(d.metadata.Operations().WriteFile(metadata, []byte(`{"metadata":{"uid":"gone"}}`), 0o600), os.WriteFile(spec, []byte("{}"), 0o600)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "removed", func() bool { return cmp.Equal(before, n.files()) })
	}
}
