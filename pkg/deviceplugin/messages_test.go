package deviceplugin

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// An event of a pod that was refused says what is the matter, and the way out.
func TestWhyPodsAreRefusedDevices(t *testing.T) {
	settle := func(o *Options) { o.Settle = time.Hour }
	for name, test := range map[string]struct {
		set  func(*Options)
		do   func(n *node, p *Plugin)
		id   string
		want []string
	}{
		"it is not there any more": {
			nil, func(*node, *Plugin) {}, "GPU-7",
			[]string{"device GPU-7 of nvidia.com/gpu is no longer on this node: delete the pod"},
		},
		"the configuration is another": {
			func(o *Options) { o.Resources[0].Selects = func(d device.Device) bool { return d.Name != "gpu-0" } },
			func(*node, *Plugin) {}, "GPU-0",
			[]string{`device "gpu-0" is not served as nvidia.com/gpu by the configuration any more: delete the pod`},
		},
		"a claim has it": {
			nil, func(n *node, p *Plugin) {
				n.claim("a", 0)
				look(n, p)
			}, "GPU-0",
			[]string{`device "gpu-0" belongs to claim ns/claim-a:a, and comes to the device plugin when that has given it back`, "delete the pod that has it, or wait", "a pod that was refused it must be deleted"},
		},
		"another instance has given it back": {
			nil, func(n *node, p *Plugin) {
				look(n, p)
				i := p.items().byID("GPU-0")
				if err := n.store.Free(i.Occupies[0], i.holder()); err != nil {
					n.t.Fatal(err)
				}
			}, "GPU-0",
			[]string{`device "gpu-0" is on its way to claims, by the configuration: delete the pod`},
		},
		"it settles": {
			settle, func(n *node, p *Plugin) {
				n.offer()
				look(n, p)
			}, "GPU-0",
			[]string{`device "gpu-0" is not served by the device plugin yet: claims may have been offered it a moment ago: it is served from `, "after 1h0m0s (devicePlugin.settle)", "delete the pod"},
		},
		"claims are offered it": {
			settle, func(n *node, p *Plugin) {
				n.offer(device.PCIThing(address(0)))
				look(n, p)
			}, "GPU-0",
			[]string{`device "gpu-0" is not served by the device plugin yet: claims are still offered it by a ResourceSlice: it is served 1h0m0s (devicePlugin.settle) after that has ended; delete the pod`},
		},
		"the API server is silent": {
			nil, func(n *node, p *Plugin) { p.step(n.t.Context()) }, "GPU-0",
			[]string{`device "gpu-0" is not served by the device plugin yet: the API server has not said yet whether claims are offered it; delete the pod`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.open("gpu", gpus(0, 1), test.set)
			t.Cleanup(func() { _ = p.store.Close() })
			test.do(n, p)
			_, err := sessionOf(t, p, &p.options.Resources[0]).ask(t, test.id)
			wantError(t, err, test.want...)
		})
	}
}

// A reason that changed with each look would have devices looked at without end.
func TestReasonsStay(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), func(o *Options) { o.Settle = time.Hour })
	t.Cleanup(func() { _ = p.store.Close() })
	n.offer()
	p.acquire(t.Context(), n.published)
	before := p.reasons["GPU-0"]
	<-p.due
	p.acquire(t.Context(), n.published)
	if after := p.reasons["GPU-0"]; after != before || len(p.due) != 0 {
		t.Errorf("the reason was %q and is %q; due: %d", before, after, len(p.due))
	}
}

func TestWhatTheLogTells(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*Options)
		do   func(n *node)
		want string
	}{
		"a pod has the device of a claim": {nil, func(n *node) {
			n.claim("a", 0)
			n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}})
		}, "A pod has a device that is not the device plugin's: see that no other device plugin gives it out"},
		"its family is switched off": {func(o *Options) {
			forClaims(o)
			o.Families = []Family{&fakeFamily{name: "vf"}}
		}, func(n *node) {
			before := n.open("gpu", gpus(0), nil)
			defer func() { _ = before.store.Close() }()
			look(n, before)
		}, `device \"gpu-0\", which pods had as an extended resource, belongs to family \"gpu\", which is switched off or not in this release: switch it on to release the device`},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			test.do(n)
			before := n.holder(0)
			if before == "" {
				t.Fatal("gpu-0 is nobody's")
			}
			var log bytes.Buffer
			p := n.open("gpu", gpus(0), test.set)
			t.Cleanup(func() { _ = p.store.Close() })
			clear(p.foreign) // as if it was not told when the devices were found
			ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
			p.step(ctx)
			if !strings.Contains(log.String(), test.want) {
				t.Errorf("the log lacks %q:\n%s", test.want, &log)
			}
			if after := n.holder(0); after != before {
				t.Errorf("gpu-0 was held by %s, and is by %q", before, after)
			}
			n.gpus.mu.Lock()
			defer n.gpus.mu.Unlock()
			if len(n.gpus.released) > 0 {
				t.Errorf("released: %v", n.gpus.released)
			}
		})
	}
}

// A claim's record may be left without its holding: the claim has its devices all
// the same.
func TestADeviceInTheRecordOfAClaimIsNotTaken(t *testing.T) {
	for name, test := range map[string]struct {
		adminAccess bool
		want        bool
	}{"its own": {false, true}, "watched by it": {true, false}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			if err := n.store.Save(&claimstore.Record{
				Claim: device.Claim{Namespace: "ns", Name: "claim-a", UID: "a"},
				Devices: []claimstore.Device{{
					Family: "gpu", Device: "gpu-0", Occupies: []string{device.PCIThing(address(0))}, AdminAccess: test.adminAccess,
				}},
			}); err != nil {
				t.Fatal(err)
			}
			p := n.open("gpu", gpus(0), nil)
			t.Cleanup(func() { _ = p.store.Close() })
			err := p.take(t.Context(), p.items()[0])
			var held *heldError
			if errors.As(err, &held) != test.want || (err != nil) != test.want {
				t.Fatalf("taken: %v", err)
			}
			if test.want {
				wantError(t, err, `device "gpu-0" belongs to claim ns/claim-a:a`)
			}
			if got := n.holder(0) == ""; got != test.want {
				t.Errorf("gpu-0 is held by %q", n.holder(0))
			}
		})
	}
}
