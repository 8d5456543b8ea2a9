package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// trigger is what brings the plugin to the step at which it fails.
type trigger string

const (
	onPrepare   trigger = "prepare"
	onUnprepare trigger = "unprepare"
	// onStart is a start after the plugin was killed with a claim prepared,
	// onRelease the same with the claim deleted in the meantime.
	onStart   trigger = "start"
	onRelease trigger = "release"
)

// scene is a step at which the plugin fails, and the way there.
type scene struct {
	step faultpoint.Step
	when trigger
	// first is a step that has to fail for this one to be reached.
	first faultpoint.Step
	// before happens between the end of the plugin and its start.
	before func(*node, claim)
	// config is the VfConfig of a claim for a VF.
	config string
	// logged: an error at this step is only logged, and the plugin goes on.
	logged bool
}

func scenes() []scene {
	var all []scene
	add := func(when trigger, steps ...faultpoint.Step) {
		for _, s := range steps {
			all = append(all, scene{step: s, when: when, logged: when == onRelease})
		}
	}
	add(onPrepare, faultpoint.PrepareReceived, faultpoint.PrepareLocked, faultpoint.PreparePlanned, faultpoint.PrepareTaken,
		faultpoint.PrepareFamily, faultpoint.PrepareCDI, faultpoint.PrepareSaved, faultpoint.PrepareAnswer,
		faultpoint.SpareTaken, faultpoint.FileWritten, faultpoint.HoldingWritten, faultpoint.HoldingLinked, faultpoint.SpecWritten)
	add(onUnprepare, faultpoint.UnprepareReceived, faultpoint.UnprepareLocked, faultpoint.UnprepareFamily, faultpoint.UnprepareFreed,
		faultpoint.UnprepareCDI, faultpoint.UnprepareMetadata, faultpoint.UnprepareDeleted, faultpoint.UnprepareAnswer)
	add(onStart, faultpoint.StartStoreOpened, faultpoint.StartRecovered, faultpoint.StartDiscovered, faultpoint.StartServing)
	add(onRelease, faultpoint.UnprepareLocked, faultpoint.UnprepareFamily, faultpoint.UnprepareFreed,
		faultpoint.UnprepareCDI, faultpoint.UnprepareMetadata, faultpoint.UnprepareDeleted)
	for _, s := range []faultpoint.Step{faultpoint.UndoFamily, faultpoint.UndoFreed, faultpoint.UndoDeleted, faultpoint.UndoCDI, faultpoint.UndoMetadata} {
		all = append(all, scene{step: s, when: onPrepare, first: faultpoint.PrepareSaved})
	}
	return append(all,
		scene{step: faultpoint.MetadataWritten, when: onPrepare, logged: true},
		scene{step: faultpoint.MendSetAside, when: onStart, logged: true, before: func(n *node, c claim) { n.write(n.record(c), `{"version":1,"cl`) }},
		scene{step: faultpoint.AsideMade, when: onStart, logged: true, before: func(n *node, c claim) { n.write(n.record(c), `{"version":1,"cl`) }},
		scene{step: faultpoint.MendHolding, when: onStart, logged: true, before: func(n *node, _ claim) {
			n.remove(filepath.Join(n.dataDir(), "devices"))
		}},
		scene{step: faultpoint.MendSpec, when: onStart, logged: true, before: func(n *node, _ claim) {
			n.write(filepath.Join(n.cdiDir(), driverName+"_gpu_gone.json"), "{}")
		}},
		scene{step: faultpoint.MendMetadata, when: onStart, logged: true, before: func(n *node, _ claim) {
			n.write(filepath.Join(n.dataDir(), "dra-device-metadata", "ns_gone", "r0", "metadata.json"), "{}")
		}},
		scene{step: faultpoint.MendPods, when: onStart, logged: true, before: func(n *node, c claim) { n.reserve(c) }},
		scene{step: faultpoint.MendHoldingPods, when: onStart, logged: true, before: func(n *node, c claim) { n.reserve(c) }},
		scene{step: faultpoint.UpdateWritten, when: onStart, logged: true, before: func(n *node, c claim) { n.reserve(c) }},
	)
}

// endings are what kubelet may do once the plugin is there again.
func endings() map[string]func(*node, *plugin, claim) *plugin {
	return map[string]func(*node, *plugin, claim) *plugin{
		"prepared again": func(_ *node, p *plugin, c claim) *plugin {
			p.mustPrepare(c)
			p.mustUnprepare(c)
			return p
		},
		"unprepared": func(_ *node, p *plugin, c claim) *plugin {
			p.mustUnprepare(c)
			return p
		},
		// Kubelet has lost track of the claim, and its pod is deleted.
		"deleted": func(n *node, p *plugin, c claim) *plugin {
			p.kill()
			n.forget(c)
			p = n.start()
			n.waitClean()
			return p
		},
	}
}

// Wherever the plugin is killed or fails, the claim works or is cleanly gone
// afterwards, nothing is left, and every GPU can be had again.
func TestEveryStep(t *testing.T) {
	for _, s := range scenes() {
		for _, how := range []string{"kill", "error"} {
			t.Run(fmt.Sprintf("%s at %s of %s", how, s.step, s.when), func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				for name, end := range endings() {
					if s.when == onRelease && name == "prepared again" {
						continue // the claim is deleted
					}
					if !t.Run(name, func(t *testing.T) { s.play(t, n, how, end) }) {
						return
					}
				}
			})
		}
	}
}

func (s scene) play(t *testing.T, n *node, how string, end func(*node, *plugin, claim) *plugin) {
	outer := n.t
	n.t = t
	defer func() { n.t = outer }()
	c := n.newClaim("gpu-0", "gpu-1")
	p := s.fail(n, c, how)
	if p == nil {
		p = n.start()
	}
	p = end(n, p, c)
	n.mustBeClean()
	p.mustGiveAll()
	p.stop()
	n.mustBeClean()
}

// fail brings a plugin to the step and sees it fail there. It returns the
// plugin if that goes on.
func (s scene) fail(n *node, c claim, how string) *plugin {
	f := fault{step: s.step, how: how}
	faults := with(f)
	if s.first != "" {
		faults = with(f, fault{step: s.first, how: "error"})
	}
	var (
		p   *plugin
		err error
	)
	switch s.when {
	case onPrepare:
		n.write(filepath.Join(n.dataDir(), "spare", "earlier"), "{}") // a node that had claims before
		p = n.start(faults)
		err = p.prepareUnchecked(c)
	case onUnprepare:
		p = n.start(faults)
		p.mustPrepare(c)
		err = p.unprepare(c)
	case onStart, onRelease:
		p = n.start()
		p.mustPrepare(c)
		p.kill()
		if s.before != nil {
			s.before(n, c)
		}
		if s.when == onRelease {
			n.forget(c)
		}
		p = n.launch(faults)
	}
	switch {
	case how == "kill":
		p.mustHaveBeenKilled()
		p.mustHaveFailed()
		return nil
	case s.logged:
		p.waitLog(f.text())
		if p.kubelet == nil {
			p.register()
		}
	case s.when == onStart:
		p.mustRefuse(f.text())
		p.mustHaveFailed()
		return nil
	default:
		mustSay(n.t, err, c.String(), f.text())
	}
	p.mustHaveFailed()
	return p
}

// reserve reserves the claim for one more pod.
func (n *node) reserve(c claim) {
	n.t.Helper()
	claims := bed.client.ResourceV1().ResourceClaims(c.Namespace)
	pod := n.newPod()
	current, err := claims.Get(n.t.Context(), c.Name, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	current.Status.ReservedFor = append(current.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	if _, err := claims.UpdateStatus(n.t.Context(), current, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func TestEveryStepHasAScene(t *testing.T) {
	tested := map[faultpoint.Step]bool{}
	for _, s := range scenes() {
		tested[s.step] = true
	}
	for _, step := range faultpoint.Steps() {
		if !tested[step] {
			t.Errorf("step %s is not among the scenes", step)
		}
	}
}

// The plugin is killed while it works on eight claims at once.
func TestKilledWithManyClaimsInFlight(t *testing.T) {
	for _, s := range []scene{
		{step: faultpoint.PrepareTaken, when: onPrepare},
		{step: faultpoint.PrepareSaved, when: onPrepare},
		{step: faultpoint.UnprepareFreed, when: onUnprepare},
	} {
		t.Run(string(s.step), func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			claims := n.oneEach()
			p := n.start(with(fault{step: s.step, how: "kill"}))
			errs := make(chan error, gpus)
			if s.when == onUnprepare {
				for _, c := range claims {
					p.mustPrepare(c)
				}
			}
			for _, c := range claims {
				go func() {
					if s.when == onUnprepare {
						errs <- p.unprepare(c)
					} else {
						errs <- p.prepareUnchecked(c)
					}
				}()
			}
			p.mustHaveBeenKilled()
			for range claims {
				if err := <-errs; err != nil {
					continue // the answer came too late
				}
			}
			p = n.start()
			for i, c := range claims {
				// Kubelet goes on with half of the pods; the others were deleted.
				if i%2 == 0 {
					p.mustPrepare(c)
				}
			}
			for _, c := range claims {
				p.mustUnprepare(c)
			}
			n.mustBeClean()
			p.mustGiveAll()
			p.stop()
			n.mustBeClean()
		})
	}
}

// dirEntries returns the names in a folder, sorted.
func dirEntries(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names
}
