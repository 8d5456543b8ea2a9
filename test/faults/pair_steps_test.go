package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// newPairNode returns a node whose machine has GPUs and NICs. What a test says of VFs
// there it says of pairs.
func newPairNode(t *testing.T) *vfNode {
	t.Helper()
	n := newVFNode(t)
	n.pairs = true
	return n
}

// newPairClaim makes a claim that is allocated a GPU and the VF beside it, as
// one device.
func (n *vfNode) newPairClaim() claim {
	n.t.Helper()
	a := n.allocation("gpu-0-vf")
	a.Configs = []draclient.Config{{Driver: driverName, JSON: vfSettings}}
	return n.allocate(a)
}

// moment is the nth time, from 0, that a step is reached in the life of a pair's
// claim.
type moment struct {
	step faultpoint.Step
	nth  int
}

func (m moment) String() string { return fmt.Sprintf("%s %d", m.step, m.nth+1) }

// most is more often than a step is reached in one life.
const most = 1000

// moments lives the life of a claim, and returns every moment of that at which
// the plugin can be made to fail. Both parts of the pair have some of their
// own: the steps of a preparation come twice, first for the GPU, and then for
// the VF.
func moments(t *testing.T, life func(*testing.T, *vfNode, *plugin, *sandbox), n *vfNode) []moment {
	t.Helper()
	var all []fault
	for _, step := range slices.Concat(faultpoint.Steps(), faultpoint.AttachSteps(), faultpoint.VFSteps()) {
		all = append(all, fault{step: step, how: "kill", passes: most})
	}
	box := n.newSandbox(n.newPairClaim())
	p := n.startVFs(with(all...))
	started := map[faultpoint.Step]int{}
	count := func(step faultpoint.Step) int {
		left, err := strconv.Atoi(mustRead(t, filepath.Join(p.once, string(step))))
		if err != nil {
			t.Fatal(err)
		}
		return most - left
	}
	for _, f := range all {
		started[f.step] = count(f.step)
	}
	life(t, n, p, box)
	var found []moment
	for _, f := range all {
		// What a start comes to has scenes of its own.
		for nth := started[f.step]; nth < count(f.step); nth++ {
			found = append(found, moment{f.step, nth})
		}
	}
	p.stop()
	n.mustBeBack()
	return found
}

// wholeLife is what happens to a claim when nothing goes wrong.
func wholeLife(_ *testing.T, _ *vfNode, p *plugin, box *sandbox) {
	p.mustPrepareVF(box.claim)
	box.mustAttach()
	p.mustUnprepare(box.claim)
}

// Wherever the plugin is killed or fails while a claim gets or gives back a
// pair, both parts are the claim's afterwards or none is, and in the end both
// are free.
func TestEveryStepOfPairs(t *testing.T) {
	var all []moment
	t.Run("find", func(t *testing.T) { all = moments(t, wholeLife, newPairNode(t)) })
	twice := []faultpoint.Step{
		faultpoint.PrepareTaken, faultpoint.PrepareFamily, faultpoint.HoldingWritten, faultpoint.PrepareCDI, faultpoint.SpecWritten,
		faultpoint.UnprepareFamily, faultpoint.UnprepareFreed,
	}
	for _, step := range twice {
		if !slices.Contains(all, moment{step, 1}) {
			t.Errorf("step %s is not reached for both parts of a pair", step)
		}
	}
	endings := vfEndings()
	names := []string{"attached", "unprepared", "deleted"}
	for i, m := range all {
		for j, how := range []string{"kill", "error"} {
			name := names[(i+j)%len(names)] // each step and each ending, not each with each
			t.Run(fmt.Sprintf("%s at %s, then %s", how, m, name), func(t *testing.T) {
				t.Parallel()
				n := newPairNode(t)
				box := n.newSandbox(n.newPairClaim())
				p := n.failPair(box, fault{step: m.step, how: how, passes: m.nth})
				p = endings[name](n, p, box)
				n.mustBeBack()
				// Both parts can be had again, together and singly.
				next := n.newSandbox(n.newPairClaim())
				p.mustPrepareVF(next.claim)
				next.mustAttach()
				p.mustUnprepare(next.claim)
				p.mustGiveAll()
				p.stop()
				n.mustBeBack()
			})
		}
	}
}

// failPair lives the life of a pair's claim up to the fault, and returns the
// plugin that runs then.
func (n *vfNode) failPair(box *sandbox, f fault) *plugin {
	n.t.Helper()
	p := n.startVFs(with(f))
	err := p.prepareUnchecked(box.claim)
	if err != nil && f.how == "error" {
		mustSay(n.t, err, f.text())
		if f.step != faultpoint.PrepareAnswer { // at which all is done
			n.mustBeBack() // the other part, too
		}
	}
	if err == nil {
		attached := make(chan error, 1)
		go func() { attached <- box.hook(n.t.Context()) }()
		select {
		case err = <-attached:
		case <-p.done: // the hook waits for the next one
			p.mustHaveBeenKilled()
			p.mustHaveFailed()
			p = n.startVFs()
			if err := <-attached; err != nil {
				n.t.Fatal(err)
			}
			box.mustHave("lo", "net1")
			return p
		}
		if err != nil && f.how == "error" {
			mustSay(n.t, err, f.text())
			if f.step != faultpoint.AttachSaved && f.step != faultpoint.AttachAnswer { // likewise
				box.mustHave("lo")
			}
		}
		if err == nil {
			err = p.unprepare(box.claim)
		}
	}
	if f.how == "kill" {
		p.mustHaveBeenKilled()
		p.mustHaveFailed()
		return n.startVFs()
	}
	if err != nil { // some errors are only logged
		mustSay(n.t, err, f.text())
	}
	p.mustHaveFailed()
	return p
}

// A pair's claim that ended while the plugin was away is released by the next
// one, which may fail at that again.
func TestReleaseOfAPairFails(t *testing.T) {
	for _, step := range []faultpoint.Step{faultpoint.UnprepareFamily, faultpoint.UnprepareFreed} {
		for nth := range 2 {
			for _, how := range []string{"kill", "error"} {
				m := moment{step, nth}
				t.Run(fmt.Sprintf("%s at %s", how, m), func(t *testing.T) {
					t.Parallel()
					n := newPairNode(t)
					box := n.newSandbox(n.newPairClaim())
					p := n.startVFs()
					p.mustPrepareVF(box.claim)
					box.mustAttach()
					p.kill()
					if err := box.end(); err != nil {
						t.Fatal(err)
					}
					n.forget(box.claim)
					f := fault{step: step, how: how, passes: nth}
					p = n.launch(with(f), n.serveVFs())
					if how == "kill" {
						p.mustHaveBeenKilled()
					} else {
						p.waitLog(f.text())
						p.kill()
					}
					p.mustHaveFailed()
					p = n.startVFs()
					n.waitClean()
					p.mustGiveAll()
					p.stop()
					n.mustBeBack()
				})
			}
		}
	}
}

// A pair outlives the plugin, with its VF in the pod; its parts are nobody
// else's meanwhile.
func TestRestartWithAPair(t *testing.T) {
	t.Parallel()
	n := newPairNode(t)
	box := n.newSandbox(n.newPairClaim())
	gpu := n.newClaim("gpu-0")
	p := n.startVFs()
	p.mustPrepareVF(box.claim)
	box.mustAttach()
	record := mustRead(t, n.record(box.claim))
	p.kill()
	p = n.startVFs()
	p.mustPrepareVF(box.claim)
	box.mustAttach()
	if after := mustRead(t, n.record(box.claim)); after != record {
		t.Errorf("the record changed from %s to %s", record, after)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- p.prepareUnchecked(gpu) }()
	p.waitLog("Waiting for a device's release")
	select {
	case err := <-waiting:
		t.Fatal(errors.Join(errors.New("a part of a pair was given to another claim"), err))
	default:
	}
	p.mustUnprepare(box.claim)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	p.mustUnprepare(gpu)
	p.stop()
	n.mustBeBack()
}
