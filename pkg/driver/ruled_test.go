package driver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// newRuledNode is a machine with one pair, of a cluster with DeviceTaintRules.
func newRuledNode(t *testing.T) *pairNode {
	t.Helper()
	n := newPairNode(t)
	n.pairs.Pairing.Least = topology.PXB
	n.client.Resources = []*metav1.APIResourceList{{
		GroupVersion: resourceapi.SchemeGroupVersion.String(),
		APIResources: []metav1.APIResource{{Name: "devicetaintrules"}},
	}}
	return n
}

// rule makes a rule for a device of any node.
func (n *node) rule(name, device string, taint resourceapi.DeviceTaint) {
	n.t.Helper()
	_, err := n.client.ResourceV1().DeviceTaintRules().Create(n.t.Context(), &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourceapi.DeviceTaintRuleSpec{DeviceSelector: &resourceapi.DeviceTaintSelector{Device: &device}, Taint: taint},
	}, createOptions)
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) removeRule(name string) {
	n.t.Helper()
	if err := n.client.ResourceV1().DeviceTaintRules().Delete(n.t.Context(), name, deleteOptions); err != nil {
		n.t.Fatal(err)
	}
}

func ruleTaint(value string, effect resourceapi.DeviceTaintEffect) resourceapi.DeviceTaint {
	return resourceapi.DeviceTaint{Key: "example.com/service", Value: value, Effect: effect, TimeAdded: ptr.To(metav1.NewTime(time.Unix(60, 0)))}
}

// A rule of a part is one of the pair, as long as it is there, and of nothing
// else: the pair keeps its place, and nothing is said to be unhealthy.
func TestARuleOfAPartTaintsThePair(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("run", func(t *testing.T) {
		n := newRuledNode(t)
		server := serveTaints(n.node)
		n.rule("before", theVF, ruleTaint("cable", resourceapi.DeviceTaintEffectNoExecute))
		d := startOnSockets(t, n.node)
		published(t, n.node, "gpu-1", "gpu-0", "gpu-0-vf=cable", spareVF, theVF)
		n.rule("drain", "gpu-0", ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule))
		n.rule("dry-run", "gpu-0", ruleTaint("look", resourceapi.DeviceTaintEffectNone))
		n.rule("alone", "gpu-1", ruleTaint("alone", resourceapi.DeviceTaintEffectNoSchedule))
		n.rule("spare", spareVF, ruleTaint("spare", resourceapi.DeviceTaintEffectNoSchedule))
		n.rule("whole", "gpu-0-vf", ruleTaint("whole", resourceapi.DeviceTaintEffectNoSchedule)) // Kubernetes applies it
		published(t, n.node, "gpu-1", "gpu-0", "gpu-0-vf=cable,drain,look", spareVF, theVF)
		taints := n.taintsOf("gpu-0-vf")
		want := []resourceapi.DeviceTaint{
			ruleTaint("cable", resourceapi.DeviceTaintEffectNoExecute), ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule), ruleTaint("look", resourceapi.DeviceTaintEffectNone),
		}
		if diff := cmp.Diff(want, taints); diff != "" {
			t.Errorf("taints (-want +got):\n%s", diff)
		}
		expect(t, n.registry, "", "eks_hybrid_dra_unhealthy_device", "eks_hybrid_dra_device_problems_total")
		if dev, ok := d.inventory.device("gpu-0-vf"); !ok || dev.complaint() != "" {
			t.Errorf("the pair is said to have %q", dev.complaint())
		}
		if err := d.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		mustPrepare(t, d, newClaim("a", []string{"gpu-0-vf"})) // tolerates it, or was there before

		for _, name := range []string{"before", "drain", "dry-run"} {
			n.removeRule(name)
		}
		published(t, n.node, "gpu-1", "gpu-0", "gpu-0-vf", spareVF, theVF)
		if asked := server.asked.Load(); asked > 2 {
			t.Errorf("asked the API server %d times what it keeps", asked)
		}
	})
}

// taintsOf returns the taints that a device is published with.
func (n *node) taintsOf(name string) []resourceapi.DeviceTaint {
	n.t.Helper()
	list, err := n.client.ResourceV1().ResourceSlices().List(n.t.Context(), metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, s := range list.Items {
		for _, d := range s.Spec.Devices {
			if d.Name == name {
				return d.Taints
			}
		}
	}
	n.t.Fatalf("%s is not published", name)
	return nil
}

// Where no taints are kept, the scheduler knows no rules either.
func TestRulesAreNothingWhereTaintsAreDropped(t *testing.T) {
	n := newRuledNode(t)
	server := serveTaints(n.node)
	server.drops.Store(true)
	n.rule("drain", "gpu-0", ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule))
	startOnSockets(t, n.node)
	published(t, n.node, "gpu-1", "gpu-0", "gpu-0-vf", spareVF, theVF)
	waitForAction(t, n.client, "list", "devicetaintrules")
	server.drops.Store(false)
	writes := server.writes.Load()
	n.rule("more", "gpu-0", ruleTaint("more", resourceapi.DeviceTaintEffectNoSchedule))
	published(t, n.node, "gpu-1", "gpu-0", "gpu-0-vf", spareVF, theVF) // not asked again so soon
	if extra := server.writes.Load() - writes; extra > 0 {
		t.Errorf("%d writes that change nothing", extra)
	}
}

// What the plugin itself says of a device goes before what rules say.
func TestADeviceHasNoMoreTaintsThanTheAPITakes(t *testing.T) {
	d := owned{problems: []problem{{Problem: device.Problem{Reason: "LinkDown"}}}}
	var ruled []resourceapi.DeviceTaint
	for i := range 2 * resourceapi.DeviceTaintsMaxLength {
		ruled = append(ruled, ruleTaint(fmt.Sprint(i), resourceapi.DeviceTaintEffectNoSchedule))
	}
	var values []string
	for _, taint := range d.taints(managed.Scheduler, ruled) {
		values = append(values, taint.Value)
	}
	if got := strings.Join(values, " "); got != "LinkDown 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14" {
		t.Errorf("published: %s", got)
	}
}

// The key by which the plugin says who gives a device is not taken from rules.
func TestARuleDoesNotSayWhoGivesADevice(t *testing.T) {
	rules := newFixedRules(resourceapi.DeviceTaint{Key: v1alpha1.TaintManaged, Value: v1alpha1.ManagedSettling, Effect: resourceapi.DeviceTaintEffectNoSchedule},
		ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule))
	close(rules.known)
	r := ruled{rules: rules}
	got := r.taints(t.Context(), onePair())
	want := map[string][]resourceapi.DeviceTaint{"gpu-0-vf": {ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What an earlier instance has published must not be taken back because this one
// does not know the rules yet; but rules that cannot be read stop nothing.
func TestPublishingWaitsForRulesForAWhile(t *testing.T) {
	for name, test := range map[string]struct {
		devices       []owned
		knownAfter    time.Duration // zero: never
		waits         time.Duration
		again         time.Duration // the next time
		instanceStops bool
		wantedOfARule int
	}{
		"known":              {devices: onePair(), knownAfter: time.Second, waits: time.Second, wantedOfARule: 1},
		"never known":        {devices: onePair(), waits: askFor, again: askFor, wantedOfARule: 1},
		"nothing has parts":  {devices: single([]owned{{Device: device.Device{Name: "gpu-0"}}})},
		"the instance stops": {devices: onePair(), instanceStops: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rules := newFixedRules(ruleTaint("drain", resourceapi.DeviceTaintEffectNoSchedule))
				r := ruled{rules: rules}
				if test.knownAfter > 0 {
					time.AfterFunc(test.knownAfter, func() { close(rules.known) })
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if test.instanceStops {
					stop()
				}
				for _, want := range []time.Duration{test.waits, test.again} {
					start := time.Now()
					if got := len(r.taints(ctx, test.devices)); got != test.wantedOfARule {
						t.Errorf("%d devices have the taint of a rule, want %d", got, test.wantedOfARule)
					}
					if waited := time.Since(start); waited != want {
						t.Errorf("waited for %v, want %v", waited, want)
					}
				}
			})
		})
	}
}

func onePair() []owned {
	return []owned{{Device: device.Device{Name: "gpu-0-vf"}, parts: []owned{{Device: device.Device{Name: "gpu-0"}}}}}
}

// fixedRules are of every device, and known once the test says so.
type fixedRules struct {
	taints []resourceapi.DeviceTaint
	known  chan struct{}
}

func newFixedRules(taints ...resourceapi.DeviceTaint) *fixedRules {
	return &fixedRules{taints: taints, known: make(chan struct{})}
}

func (f *fixedRules) Naming(...string) []resourceapi.DeviceTaint { return f.taints }

func (f *fixedRules) Follow(context.Context, func()) {}

func (f *fixedRules) Known() <-chan struct{} { return f.known }
