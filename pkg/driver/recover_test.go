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
	file := filepath.Join(d.metadataDir(), metadataName(claimRef(old)), "r0", "metadata.json")
	for _, test := range []struct {
		uid   string
		stays bool
	}{{"next", true}, {"old", false}} {
		files := d.metadataFiles()
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
