package driver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
)

// breakHolding leaves what a crash of the machine can leave of a holding.
func (n *node) breakHolding(thing string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "data", "devices", thing+".json"), nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) holder(d *Driver, thing string) string {
	n.t.Helper()
	holder, err := d.store.Holder(thing)
	if err != nil {
		n.t.Fatal(err)
	}
	if holder == nil {
		return ""
	}
	return string(holder.Claim.UID)
}

// A holding that breaks while the plugin runs is made anew by the next call for
// its claim, whichever that is, and the device is released in the end.
func TestBrokenHoldingOfAPreparedClaim(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	n.breakHolding("pci-gpu-0")
	mustPrepare(t, d, claim)
	if got := n.holder(d, "pci-gpu-0"); got != "a" {
		t.Errorf("gpu-0 is held by %q", got)
	}
	n.breakHolding("pci-gpu-0")
	mustUnprepare(t, d, claim)
	if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
		t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
	}
}

// Repeating a preparation that then fails takes nothing from the containers
// that use what the claim had.
func TestFailedRepetitionKeepsTheDevice(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	n.breakHolding("pci-gpu-0")
	if err := os.RemoveAll(n.cdiDir()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.cdiDir(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := prepare(t, d, claim).Err; err == nil {
		t.Fatal("prepared without a CDI folder")
	}
	if got := n.holder(d, "pci-gpu-0"); got != "a" || n.gpus.ready["gpu-0"] != "a" {
		t.Errorf("gpu-0 is held by %q and ready for %q", got, n.gpus.ready["gpu-0"])
	}
}

// Of two instances that found the same broken holding, the second must not move
// away what the first has put into its place.
func TestBrokenHoldingIsSetAsideOnce(t *testing.T) {
	n := newNode(t, "gpu-0")
	one, two := n.start(), n.start()
	n.breakHolding("pci-gpu-0")
	_, unreadable, err := two.store.Holdings()
	if err != nil || len(unreadable) != 1 {
		t.Fatalf("%v, %v", unreadable, err)
	}
	mustPrepare(t, one, newClaim("a", []string{"gpu-0"}))
	if err := two.setAside(t.Context(), unreadable[0]); err != nil {
		t.Fatal(err)
	}
	if got := n.holder(two, "pci-gpu-0"); got != "a" {
		t.Errorf("gpu-0 is held by %q", got)
	}
}

// A claim that waits for its second device puts the first back each time, and
// must not wake itself by that.
func TestWaitingForOneOfSeveralDevicesIsNoBusyLoop(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	holder := newClaim("holder", []string{"gpu-1"})
	mustPrepare(t, d, holder)
	n.createClaim(holder)
	freed := d.store.Freed()
	if err := prepare(t, d, newClaim("next", []string{"gpu-0", "gpu-1"})).Err; err == nil {
		t.Fatal("prepared")
	}
	select {
	case <-freed:
		t.Error("a claim that only waits told others, and itself, that something was given back")
	default:
	}
	if got := n.holder(d, "pci-gpu-0"); got != "" {
		t.Errorf("gpu-0 is kept by %q while it waits", got)
	}
}

// Kubelet, started anew, repeats the preparation for a pod that joined later.
func TestPodThatJoinedIsNotedByARepetition(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	claim := newClaim("a", []string{"gpu-0"})
	mustPrepare(t, d, claim)
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
	mustPrepare(t, d, claim)
	n.processes.pods["pod-second"] = true
	if err := unprepare(t, d, claim); err == nil {
		t.Error("unprepared while the second pod runs")
	}
}

// The record is lost, so a preparation that kubelet repeats begins anew. If it
// fails, the pods that run keep what they have, and what nobody uses is undone.
func TestFailureTakesNothingFromARunningPod(t *testing.T) {
	for name, runs := range map[string]bool{"the pod runs": true, "no pod runs": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "gpu-0", "gpu-1")
			d := n.start()
			claim := newClaim("a", []string{"gpu-0", "gpu-1"})
			mustPrepare(t, d, claim)
			n.processes.pods["pod-a"] = runs
			if err := os.WriteFile(filepath.Join(n.dir, "data", "claims", "a.json"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n.gpus.fail["gpu-1"] = errors.New("fell off the bus")
			if err := prepare(t, d, claim).Err; err == nil {
				t.Fatal("prepared")
			}
			if kept := n.holder(d, "pci-gpu-0") == "a" && n.gpus.ready["gpu-0"] == "a" && d.cdi.Exists("gpu", "a"); kept != runs {
				t.Errorf("the claim has its device: %v", kept)
			}
			n.processes.end("pod-a")
			mustUnprepare(t, d, claim)
			if files := n.files(); len(files) > 0 || len(n.gpus.ready) > 0 {
				t.Errorf("left behind: files %v, devices %v", files, n.gpus.ready)
			}
		})
	}
}
