package driver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// A claim that was allocated the same device again with another configuration
// is prepared anew, but not under a pod that still runs.
func TestNewConfigurationOfTheSameDevice(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	n.processes.pods["pod-a"] = true
	again := newClaim("a", []string{"gpu-0"}, withConfig(resourceapi.AllocationConfigSourceClaim, gpuConfig))
	n.createClaim(again)
	if err := prepare(t, d, again).Err; err == nil || !strings.Contains(err.Error(), "gpu-0") {
		t.Fatalf("want to hear that gpu-0 is still in use, got %v", err)
	}
	n.processes.end("pod-a")
	mustPrepare(t, d, again)
	if n.gpus.prepares != 2 {
		t.Errorf("the family was asked %d times, want once for each configuration", n.gpus.prepares)
	}
	mustPrepare(t, d, again)
	if n.gpus.prepares != 2 {
		t.Error("preparing again with the same configuration did something")
	}
	mustUnprepare(t, d, again)
	if files := n.files(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// The spaces of a configuration are none of its meaning, and a record of a
// release that noted no configuration is still that of its claim.
func TestSameConfiguration(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := func(raw string) *resourceapi.ResourceClaim {
		return newClaim("a", []string{"gpu-0"}, withConfig(resourceapi.AllocationConfigSourceClass, raw))
	}
	mustPrepare(t, d, claim(gpuConfig))
	mustPrepare(t, d, claim(strings.ReplaceAll(gpuConfig, ",", ",\n  ")))
	record, err := d.store.Load("a")
	if err != nil {
		t.Fatal(err)
	}
	record.ConfigHash = ""
	if err := d.store.Save(record); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	if n.gpus.prepares != 1 {
		t.Errorf("the family was asked %d times", n.gpus.prepares)
	}
}

// An API server that takes questions and never answers must not keep the next
// pod from a device that was given back.
func TestSilentAPIDelaysNoPrepare(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.wait = time.Minute
	d := n.start()
	old, next := newClaim("old", []string{"gpu-0"}), newClaim("next", []string{"gpu-0"})
	mustPrepare(t, d, old)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	n.client.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked <- struct{}{}
		<-answer
		return true, nil, errors.New("connection lost")
	})
	done := make(chan error, 1)
	go func() { done <- prepare(t, d, next).Err }()
	<-asked
	mustUnprepare(t, d, old)
	// The fake client does not hear that the question is not of interest any
	// more, so the call itself goes on.
	waitFor(t, "prepared the next claim", func() bool {
		record, err := d.store.Load("next")
		return err == nil && record != nil
	})
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A pod that came to share the claim later keeps the device too when the record
// that names it is lost.
func TestLaterPodsAreKnownWithoutTheRecord(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
	mustPrepare(t, d, claim)
	n.processes.pods = map[types.UID]bool{"pod-second": true}
	if err := os.Remove(filepath.Join(n.dir, "data", "claims", "a.json")); err != nil {
		t.Fatal(err)
	}
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); released || err != nil {
		t.Fatalf("released %v, %v", released, err)
	}
	n.processes.end("pod-second")
	if released, err := d.releaseIfAbandoned(t.Context(), claimRef(claim)); !released || err != nil {
		t.Errorf("released %v, %v", released, err)
	}
}

// The metadata files of a claim that is gone are removed at a start, those of a
// claim that is there are not, also where both had one name.
func TestStrayMetadataIsRemoved(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	mustPrepare(t, d, newClaim("here", []string{"gpu-0"}))
	write := func(name, uid string) string {
		file := d.metadata.Path(device.Claim{Namespace: "ns", Name: name}, "r0")
		if err := d.metadata.Operations().WriteFile(file, []byte(`{"metadata":{"uid":"`+uid+`"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	stays, goes := write("claim-here", "here"), write("claim-gone", "gone")
	n.start()
	if _, err := os.Stat(stays); err != nil {
		t.Errorf("metadata of a claim that is there: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(goes))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("metadata of a claim that is gone: %v", err)
	}
}
