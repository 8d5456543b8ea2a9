package faults

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// onAttach is the attach hook's call.
const onAttach trigger = "attach"

func vfScenes() []scene {
	var all []scene
	add := func(when trigger, steps ...faultpoint.Step) {
		for _, s := range steps {
			all = append(all, scene{step: s, when: when, config: vfSettings})
		}
	}
	add(onAttach, faultpoint.AttachReceived, faultpoint.AttachLocked, faultpoint.AttachFamily, faultpoint.AttachSaved, faultpoint.AttachAnswer)
	all = append(all, scene{step: faultpoint.AttachUndone, when: onAttach, first: faultpoint.AttachFamily, config: vfSettings})
	add(onPrepare, faultpoint.VFJournalHalfWritten, faultpoint.VFJournalWritten, faultpoint.VFSettingsApplied, faultpoint.VFInterfaceSet)
	add(onAttach, faultpoint.VFPlaceWritten, faultpoint.VFNamedApart, faultpoint.VFMoved, faultpoint.VFNamed,
		faultpoint.VFAddressed, faultpoint.VFRouted, faultpoint.VFPlaceDone)
	add(onUnprepare, faultpoint.VFPlaceLeft, faultpoint.VFNetworkDeleted, faultpoint.VFNamedApartBack, faultpoint.VFTakenBack, faultpoint.VFNamedBack, faultpoint.VFPlaceCleared,
		faultpoint.VFDriverRestored, faultpoint.VFSettingsRestored, faultpoint.VFInterfaceReset, faultpoint.VFJournalDeleted)
	return append(all,
		scene{step: faultpoint.VFNetworkAdded, when: onAttach, config: vfNetwork},
		scene{step: faultpoint.VFPlaceDone, when: onAttach, config: vfNetwork},
		scene{step: faultpoint.VFNetworkDeleted, when: onUnprepare, config: vfNetwork},
		scene{step: faultpoint.VFPlaceCleared, when: onUnprepare, config: vfNetwork},
		scene{step: faultpoint.VFIPAMAdded, when: onAttach, config: vfIPAM},
		scene{step: faultpoint.VFAddressed, when: onAttach, config: vfIPAM},
		scene{step: faultpoint.VFNetworkDeleted, when: onUnprepare, config: vfIPAM},
	)
}

// notPlayed are the steps that a plugin with simulated NICs does not come to.
// Those in pkg/sriov are failed there, in TestFaultAtEveryStep, with a kernel
// that is played.
func notPlayed() []faultpoint.Step {
	return []faultpoint.Step{
		// The simulated sysfs is made of plain files: no kernel behind them binds a
		// function to vfio-pci. The guest, whose NICs are real, does.
		faultpoint.VFDriverBound,
		// The simulated RDMA devices are not the kernel's, so they belong to no
		// network namespace and are not moved.
		faultpoint.VFRDMAMoved, faultpoint.VFRDMATakenBack,
	}
}

// lostJournal is a scene of a journal that cannot be read when a VF is attached.
func lostJournal() scene {
	return scene{step: faultpoint.VFJournalRebuilt, when: onAttach, before: func(n *node, _ claim) { n.spoilJournals() }}
}

// What a VF was called before its claim is lost with its journal, but neither
// the claim nor the VF is.
func TestJournalOfAVFIsLost(t *testing.T) {
	for _, how := range []string{"kill", "error"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			n := newVFNode(t)
			box := n.newSandbox(n.newVFClaim(vfSettings))
			p := lostJournal().failVF(n, box, how)
			box.mustAttach()
			for range 2 {
				p.mustUnprepare(box.claim)
				box.mustHave("lo")
				n.mustBeClean()
				if now := n.host.interfaces(t); len(now) != len(n.interfaces) {
					t.Fatalf("the host had %d interfaces, and has %d: %v", len(n.interfaces), len(now), now)
				}
				box = n.newSandbox(n.newVFClaim(vfSettings))
				p.mustPrepareVF(box.claim)
				box.mustAttach()
			}
			p.mustUnprepare(box.claim)
			p.stop()
			n.mustBeClean()
		})
	}
}

// spoilJournals makes what is kept of VFs unreadable.
func (n *node) spoilJournals() {
	n.t.Helper()
	journals, err := filepath.Glob(filepath.Join(n.dataDir(), "vfs", "*.json"))
	if err != nil || len(journals) == 0 {
		n.t.Fatalf("no journal of a VF: %v", err)
	}
	for _, path := range journals {
		n.write(path, `{"version":1,"cl`)
	}
}

// vfEndings are what may happen once the plugin is there again.
func vfEndings() map[string]func(*vfNode, *plugin, *sandbox) *plugin {
	return map[string]func(*vfNode, *plugin, *sandbox) *plugin{
		"attached": func(_ *vfNode, p *plugin, s *sandbox) *plugin {
			p.mustPrepareVF(s.claim)
			s.mustAttach()
			p.mustUnprepare(s.claim)
			s.mustHave("lo")
			return p
		},
		"unprepared": func(_ *vfNode, p *plugin, s *sandbox) *plugin {
			p.mustUnprepare(s.claim)
			s.mustHave("lo")
			return p
		},
		// The pod's sandbox is gone, and kubelet has lost track of the claim.
		"deleted": func(n *vfNode, p *plugin, s *sandbox) *plugin {
			p.kill()
			if err := s.end(); err != nil {
				n.t.Fatal(err)
			}
			n.forget(s.claim)
			p = n.startVFs()
			n.waitClean()
			return p
		},
	}
}

// Wherever the plugin is killed or fails while it attaches a VF, the pod either
// has it whole or does not start, and in the end the host has it back as it was.
func TestEveryStepOfVFs(t *testing.T) {
	for _, s := range vfScenes() {
		for _, how := range []string{"kill", "error"} {
			t.Run(fmt.Sprintf("%s at %s of %s%s", how, s.step, s.when, s.configured()), func(t *testing.T) {
				t.Parallel()
				n := newVFNode(t)
				for name, end := range vfEndings() {
					if !t.Run(name, func(t *testing.T) { s.playVF(t, n, how, end) }) {
						return
					}
				}
			})
		}
	}
}

func (s scene) configured() string {
	switch s.config {
	case vfNetwork:
		return " with a network"
	case vfIPAM:
		return " with IPAM"
	}
	return ""
}

func (s scene) playVF(t *testing.T, n *vfNode, how string, end func(*vfNode, *plugin, *sandbox) *plugin) {
	outer := n.t
	n.t = t
	defer func() { n.t = outer }()
	box := n.newSandbox(n.newVFClaim(s.config))
	p := s.failVF(n, box, how)
	p = end(n, p, box)
	n.mustBeBack()
	p.stop()
	n.mustBeBack()
}

// failVF brings a plugin to the step, sees it fail there, and returns the one
// that runs then.
func (s scene) failVF(n *vfNode, box *sandbox, how string) *plugin {
	f := fault{step: s.step, how: how}
	faults := with(f)
	if s.first != "" {
		faults = with(f, fault{step: s.first, how: "error"})
	}
	p := n.startVFs(faults)
	attached := make(chan error, 1)
	var err error
	if s.when != onPrepare {
		p.mustPrepareVF(box.claim)
	}
	if s.before != nil {
		s.before(n.node, box.claim)
	}
	switch s.when {
	case onPrepare:
		err = p.prepareUnchecked(box.claim)
	case onAttach:
		go func() { attached <- box.hook(n.t.Context()) }()
		if how == "error" {
			err = <-attached
		}
	case onUnprepare:
		box.mustAttach()
		err = p.unprepare(box.claim)
	}
	if how == "error" {
		mustSay(n.t, err, f.text())
		p.mustHaveFailed()
		return p
	}
	p.mustHaveBeenKilled()
	p.mustHaveFailed()
	p = n.startVFs()
	if s.when == onAttach { // the hook has waited
		if err := <-attached; err != nil {
			n.t.Fatal(err)
		}
		box.mustHave("lo", "net1")
	}
	return p
}

func (p *plugin) mustPrepareVF(c claim) {
	p.t.Helper()
	if err := p.prepareUnchecked(c); err != nil {
		p.t.Fatal(err)
	}
}

// The claim's status tells what the pod has, also where the claim's parameters
// are in a form that the API server would not give them.
func TestStatusOfVFs(t *testing.T) {
	t.Parallel()
	n := newVFNode(t)
	box := n.newSandbox(n.newVFClaim(vfSettings))
	p := n.startVFs()
	p.mustPrepareVF(box.claim)
	box.mustAttach()
	want := &resourceapi.NetworkDeviceData{InterfaceName: "net1", IPs: []string{"192.0.2.5/24"}, HardwareAddress: "02:00:00:00:00:42"}
	eventually(t, "status written", func() error {
		claim, err := bed.client.ResourceV1().ResourceClaims(box.claim.Namespace).Get(t.Context(), box.claim.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(claim.Status.Devices) != 1 || !meta.IsStatusConditionTrue(claim.Status.Devices[0].Conditions, "Ready") {
			return fmt.Errorf("devices: %+v", claim.Status.Devices)
		}
		if diff := cmp.Diff(want, claim.Status.Devices[0].NetworkData); diff != "" {
			return fmt.Errorf("network data (-want +got):\n%s", diff)
		}
		return nil
	})
	p.mustUnprepare(box.claim)
	p.stop()
	n.mustBeBack()
}

func TestEveryStepOfAttachingHasAScene(t *testing.T) {
	scenes := append(vfScenes(), lostJournal())
	for _, step := range slices.Concat(faultpoint.AttachSteps(), faultpoint.VFSteps()) {
		if slices.Contains(notPlayed(), step) {
			continue
		}
		if !slices.ContainsFunc(scenes, func(s scene) bool { return s.step == step }) {
			t.Errorf("step %s is not among the scenes", step)
		}
	}
}
