package deviceplugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// ruin empties the holding of a GPU, as a disk that was full may have.
func (n *node) ruin(gpu int) string {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, "data", "devices", "*"+address(gpu)+"*.json"))
	if err != nil || len(files) != 1 {
		n.t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
	return files[0]
}

// usedByPod is a plugin whose GPU a pod uses, and is to go to claims.
func (n *node) usedByPod() *Plugin {
	n.t.Helper()
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}, UIDs: []types.UID{"pod"}})
	p := n.open("gpu", gpus(0), forClaims)
	n.t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	n.kubelet.beSilent(errors.New("no answer"))
	return p
}

func TestAHoldingThatCannotBeReadAnyMoreIsWrittenAgain(t *testing.T) {
	n := newNode(t)
	p := n.usedByPod()
	before := n.holder(0)
	n.ruin(0)
	if err := p.readHeld(); err != nil {
		t.Fatal(err)
	}
	if !p.Reserves(gpus(0).Devices[0]) {
		t.Error("claims are offered the device of a pod")
	}
	p.step(t.Context())
	if after := n.holder(0); after != before || !strings.Contains(after, "pod ns/pod") {
		t.Errorf("held by %q, before by %q", after, before)
	}
	if !p.Reserves(gpus(0).Devices[0]) {
		t.Error("claims are offered the device of a pod, later")
	}
}

// A claim that has set the file aside, and taken the device, has it.
func TestAHoldingIsNotWrittenAgainIfAClaimHasTheDevice(t *testing.T) {
	for name, claim := range map[string]func(n *node){
		"by its holding": func(n *node) {
			if err := os.Remove(n.ruin(0)); err != nil {
				n.t.Fatal(err)
			}
			n.claim("a", 0)
		},
		"by its record": func(n *node) {
			i := &item{Device: gpus(0).Devices[0], family: n.gpus}
			if err := n.store.Save(&claimstore.Record{
				Claim:   device.Claim{Namespace: "ns", Name: "claim-a", UID: "a"},
				Devices: []claimstore.Device{i.holding().Device},
			}); err != nil {
				n.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.usedByPod()
			n.ruin(0)
			if err := p.readHeld(); err != nil {
				t.Fatal(err)
			}
			claim(n)
			p.step(t.Context())
			if len(p.held) > 0 {
				t.Errorf("the device plugin holds %v", p.held)
			}
		})
	}
}

// The driver sets files aside that it cannot read when it starts.
func TestADeviceWhoseHoldingCannotBeReadAtTheStartIsReservedUntilKubeletIsHeard(t *testing.T) {
	for name, test := range map[string]struct {
		uses map[string]kubelet.Use
		want bool
	}{
		"a pod has it":  {map[string]kubelet.Use{"GPU-0": {Pods: []string{"ns/pod"}}}, true},
		"no pod has it": {map[string]kubelet.Use{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.usedByPod()
			file := n.ruin(0)
			p := n.open("gpu", gpus(0), forClaims)
			t.Cleanup(func() { _ = p.store.Close() })
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				p.step(t.Context())
				if !p.Reserves(gpus(0).Devices[0]) {
					t.Fatal("claims are offered the device before kubelet has said that no pod has it")
				}
			}
			n.kubelet.set(test.uses, nil)
			p.step(t.Context())
			if got := p.Reserves(gpus(0).Devices[0]); got != test.want {
				t.Errorf("reserved: %v, want %v", got, test.want)
			}
			if got := n.holder(0) != ""; got != test.want {
				t.Errorf("held: %v, want %v", got, test.want)
			}
		})
	}
}
