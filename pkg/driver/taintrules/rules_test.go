package taintrules

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

const (
	testDriver = "eks-hybrid-dra"
	testPool   = "dgx-0/eks-hybrid-dra"
)

// site is an API server and the rules that are read from it.
type site struct {
	t       *testing.T
	client  *fake.Clientset
	rules   *Rules
	changes atomic.Int32
	// version is whether the API's version is served, served whether the kind
	// is, and away whether nobody answers.
	version, served, away atomic.Bool
}

func newSite(t *testing.T) *site {
	s := &site{t: t, client: fake.NewClientset()}
	s.rules = New(s.client, testDriver, testPool)
	s.client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
		if s.away.Load() {
			return true, nil, errors.New("connection refused")
		}
		s.client.Resources = nil
		if s.version.Load() {
			list := &metav1.APIResourceList{GroupVersion: resourceapi.SchemeGroupVersion.String(), APIResources: []metav1.APIResource{{Name: "resourceslices"}}}
			if s.served.Load() {
				list.APIResources = append(list.APIResources, metav1.APIResource{Name: kind})
			}
			s.client.Resources = append(s.client.Resources, list)
		}
		return false, nil, nil
	})
	s.version.Store(true)
	s.served.Store(true)
	return s
}

// follow reads the rules until the test ends.
func (s *site) follow() {
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.rules.Follow(ctx, func() { s.changes.Add(1) })
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
}

// pass lets time pass, of which the test's clock has as much as it wants.
func (s *site) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (s *site) add(rule *resourceapi.DeviceTaintRule) {
	s.t.Helper()
	if _, err := s.client.ResourceV1().DeviceTaintRules().Create(s.t.Context(), rule, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Second)
}

func (s *site) remove(name string) {
	s.t.Helper()
	if err := s.client.ResourceV1().DeviceTaintRules().Delete(s.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Second)
}

// want fails the test unless the rules give these taints to the devices, and
// have been said to have changed so often since the last time.
func (s *site) want(changes int32, taints []resourceapi.DeviceTaint, devices ...string) {
	s.t.Helper()
	if diff := cmp.Diff(taints, s.rules.Naming(devices...)); diff != "" {
		s.t.Errorf("taints of %v (-want +got):\n%s", devices, diff)
	}
	if got := s.changes.Swap(0); got != changes {
		s.t.Errorf("told of %d changes, want %d", got, changes)
	}
}

// known tells whether anybody who waits for the rules goes on.
func (s *site) known() bool { return s.rules.hasAnswered() }

func taint(key string, effect resourceapi.DeviceTaintEffect, minute int) resourceapi.DeviceTaint {
	return resourceapi.DeviceTaint{Key: key, Value: "v", Effect: effect, TimeAdded: ptr.To(metav1.NewTime(time.Unix(int64(60*minute), 0)))}
}

func rule(name string, selector *resourceapi.DeviceTaintSelector, taint resourceapi.DeviceTaint) *resourceapi.DeviceTaintRule {
	return &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourceapi.DeviceTaintRuleSpec{DeviceSelector: selector, Taint: taint},
	}
}

func named(device string) *resourceapi.DeviceTaintSelector {
	return &resourceapi.DeviceTaintSelector{Driver: ptr.To(testDriver), Pool: ptr.To(testPool), Device: &device}
}

// A rule counts for a part when it names it. One that names none is of the whole
// already.
func TestWhichRulesAreOfADevice(t *testing.T) {
	for name, test := range map[string]struct {
		selector *resourceapi.DeviceTaintSelector
		want     bool
	}{
		"the device":                  {named("gpu-0"), true},
		"its name anywhere":           {&resourceapi.DeviceTaintSelector{Device: ptr.To("gpu-0")}, true},
		"its name in the pool":        {&resourceapi.DeviceTaintSelector{Pool: ptr.To(testPool), Device: ptr.To("gpu-0")}, true},
		"its name of the driver":      {&resourceapi.DeviceTaintSelector{Driver: ptr.To(testDriver), Device: ptr.To("gpu-0")}, true},
		"another device":              {named("gpu-0-vf"), false},
		"its name of another driver":  {&resourceapi.DeviceTaintSelector{Driver: ptr.To("other"), Device: ptr.To("gpu-0")}, false},
		"its name in another pool":    {&resourceapi.DeviceTaintSelector{Pool: ptr.To("dgx-1/eks-hybrid-dra"), Device: ptr.To("gpu-0")}, false},
		"all of the pool":             {&resourceapi.DeviceTaintSelector{Pool: ptr.To(testPool)}, false},
		"all of the driver":           {&resourceapi.DeviceTaintSelector{Driver: ptr.To(testDriver)}, false},
		"all (empty selector)":        {&resourceapi.DeviceTaintSelector{}, false},
		"no device (without any)":     {nil, false},
		"a name that is that of none": {named(""), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.follow()
				gone := taint("gone", resourceapi.DeviceTaintEffectNoExecute, 1)
				s.add(rule("r", test.selector, gone))
				var want []resourceapi.DeviceTaint
				if test.want {
					want = append(want, gone)
				}
				s.changes.Store(0)
				s.want(0, want, "gpu-0", "vf-0")
			})
		})
	}
}

func TestRulesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.follow()
		if !s.known() {
			t.Error("nobody knows that there are no rules")
		}
		s.want(0, nil, "gpu-0", "vf-0")

		drain, cable := taint("drain", resourceapi.DeviceTaintEffectNoExecute, 5), taint("cable", resourceapi.DeviceTaintEffectNoSchedule, 1)
		s.add(rule("cable", named("vf-0"), cable))
		s.add(rule("drain", named("gpu-0"), drain))
		s.add(rule("dry-run", named("gpu-0"), taint("a", resourceapi.DeviceTaintEffectNone, 2)))
		s.add(rule("future", named("gpu-0"), taint("a", "Explode", 2)))
		s.add(rule("elsewhere", &resourceapi.DeviceTaintSelector{Pool: ptr.To("dgx-1"), Device: ptr.To("gpu-0")}, drain))
		all := []resourceapi.DeviceTaint{drain, cable, taint("a", resourceapi.DeviceTaintEffectNone, 2)}
		s.want(4, all, "gpu-0", "vf-0")
		s.want(0, all[1:2], "vf-0")

		// The same of both parts is one taint, as old as the older.
		s.add(rule("older", named("vf-0"), taint("drain", resourceapi.DeviceTaintEffectNoExecute, 3)))
		all[0].TimeAdded = ptr.To(metav1.NewTime(time.Unix(180, 0)))
		s.want(1, all, "gpu-0", "vf-0")
		s.remove("older")
		s.remove("elsewhere")
		all[0] = drain
		s.want(1, all, "gpu-0", "vf-0")

		// Kubernetes tells of evictions in the status.
		changed := rule("drain", named("gpu-0"), drain)
		changed.Status.Conditions = []metav1.Condition{{Type: "EvictionInProgress", Status: metav1.ConditionTrue}}
		s.update(changed)
		s.want(0, all, "gpu-0", "vf-0")
		changed.Spec.DeviceSelector = named("gpu-1")
		s.update(changed)
		s.want(1, all[1:], "gpu-0", "vf-0")
		s.want(0, all[:1], "gpu-1")

		for _, name := range []string{"drain", "cable", "dry-run", "future"} {
			s.remove(name)
		}
		s.want(4, nil, "gpu-0", "vf-0", "gpu-1")
	})
}

func (s *site) update(rule *resourceapi.DeviceTaintRule) {
	s.t.Helper()
	if _, err := s.client.ResourceV1().DeviceTaintRules().Update(s.t.Context(), rule.DeepCopy(), metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Second)
}

// A control plane that does not serve rules, or may not be asked, keeps nobody
// waiting, and is asked again.
func TestControlPlanesWithoutRules(t *testing.T) {
	drain := taint("drain", resourceapi.DeviceTaintEffectNoSchedule, 1)
	for name, serves := range map[string]func(*site) *atomic.Bool{
		"not the version": func(s *site) *atomic.Bool { return &s.version },
		"not the kind":    func(s *site) *atomic.Bool { return &s.served },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				serves(s).Store(false)
				s.add(rule("drain", named("gpu-0"), drain))
				s.follow()
				if !s.known() {
					t.Error("somebody waits for rules that there are not")
				}
				s.want(0, nil, "gpu-0")
				serves(s).Store(true)
				s.pass(2 * askEvery)
				s.want(1, []resourceapi.DeviceTaint{drain}, "gpu-0")
				s.away.Store(true)
				s.pass(2 * askEvery)
				s.want(0, []resourceapi.DeviceTaint{drain}, "gpu-0")
				s.away.Store(false)
				serves(s).Store(false)
				s.pass(2 * askEvery)
				s.want(1, nil, "gpu-0")
			})
		})
	}
}

func TestRulesThatCannotBeReadYet(t *testing.T) {
	drain := taint("drain", resourceapi.DeviceTaintEffectNoSchedule, 1)
	t.Run("nobody answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.add(rule("drain", named("gpu-0"), drain))
			s.away.Store(true)
			s.follow()
			s.pass(time.Hour)
			if s.known() {
				t.Error("nobody has told, and yet it is known")
			}
			s.away.Store(false)
			s.pass(2 * time.Second)
			if !s.known() {
				t.Error("still not known")
			}
			s.want(1, []resourceapi.DeviceTaint{drain}, "gpu-0")
		})
	})
	t.Run("forbidden to ask what is served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(resourceapi.Resource(""), "", errors.New("no"))
			})
			s.follow()
			if !s.known() {
				t.Error("somebody waits for rules that nobody will tell of")
			}
			s.want(0, nil, "gpu-0")
		})
	})
	t.Run("forbidden", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.add(rule("drain", named("gpu-0"), drain))
			var allowed atomic.Bool
			s.client.PrependReactor("list", kind, func(clienttesting.Action) (bool, runtime.Object, error) {
				return !allowed.Load(), nil, apierrors.NewForbidden(resourceapi.Resource(kind), "", errors.New("no"))
			})
			s.follow()
			s.pass(time.Second)
			if !s.known() {
				t.Error("somebody waits for rules that may not be read")
			}
			s.want(0, nil, "gpu-0")
			allowed.Store(true)
			s.pass(time.Minute)
			s.want(1, []resourceapi.DeviceTaint{drain}, "gpu-0")
		})
	})
}
