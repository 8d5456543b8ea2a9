package allocation

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// ruleSite is an API server, and what follows its DeviceTaintRules.
type ruleSite struct {
	t      *testing.T
	client *fake.Clientset
	watch  *ruleWatch
	// served is whether rules are, refused whether they may not be read, away
	// whether nobody answers.
	served, refused, away atomic.Bool
	asked                 atomic.Int32
}

func newRuleSite(t *testing.T) *ruleSite {
	s := &ruleSite{t: t, client: fake.NewClientset()}
	known := fleet.New(fleettest.Driver)
	known.SetNode(fleettest.DGX("a").Object(nil))
	for _, slice := range fleettest.DGX("a").Slices() {
		known.SetSlice(slice)
	}
	s.watch = newRuleWatch(&Controller{Options: Options{Fleet: known, Client: s.client}, waiting: newWaiting(clock.RealClock{}, func(Request) {})})
	s.client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
		s.asked.Add(1)
		if s.away.Load() {
			return true, nil, errors.New("connection refused")
		}
		list := &metav1.APIResourceList{GroupVersion: resourceapi.SchemeGroupVersion.String()}
		if s.served.Load() {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: taintRules})
		}
		s.client.Resources = []*metav1.APIResourceList{list}
		return false, nil, nil
	})
	s.client.PrependReactor("list", taintRules, func(clienttesting.Action) (bool, runtime.Object, error) {
		s.asked.Add(1)
		if s.refused.Load() {
			return true, nil, apierrors.NewForbidden(resourceapi.Resource(taintRules), "", errors.New("no"))
		}
		return false, nil, nil
	})
	return s
}

// follow reads the rules until the test ends.
func (s *ruleSite) follow() {
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.watch.run(ctx)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
	})
	s.pass(time.Second)
}

// pass lets time pass, of which the test's clock has as much as it wants.
func (s *ruleSite) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// make makes a rule that taints all GPUs of that number.
func (s *ruleSite) make(device string) {
	s.t.Helper()
	rule := &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: "r-" + device},
		Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: &resourceapi.DeviceTaintSelector{Device: &device},
			Taint:          resourceapi.DeviceTaint{Key: "example.com/drain", Effect: resourceapi.DeviceTaintEffectNoSchedule},
		},
	}
	if _, err := s.client.ResourceV1().DeviceTaintRules().Create(s.t.Context(), rule, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Second)
}

func (s *ruleSite) want(synced bool, tainted ...string) {
	s.t.Helper()
	if s.watch.synced() != synced {
		s.t.Errorf("claims may be allocated: %t", !synced)
	}
	var got []string
	for _, d := range s.watch.Fleet.View().Node("a").Pools[0].Shape.Devices {
		if len(d.Taints) > 0 {
			got = append(got, d.Name)
		}
	}
	if !slices.Equal(got, tainted) {
		s.t.Errorf("devices with taints: %v, want %v", got, tainted)
	}
}

func TestRulesOfTheCluster(t *testing.T) {
	tests := map[string]func(s *ruleSite){
		"come and go": func(s *ruleSite) {
			s.served.Store(true)
			s.make("gpu-1")
			s.follow()
			s.want(true, "gpu-1")
			s.make("gpu-2")
			s.want(true, "gpu-1", "gpu-2")
			if err := s.client.ResourceV1().DeviceTaintRules().Delete(s.t.Context(), "r-gpu-1", metav1.DeleteOptions{}); err != nil {
				s.t.Fatal(err)
			}
			s.pass(time.Second)
			s.want(true, "gpu-2")
			before := s.asked.Load()
			s.pass(time.Hour)
			if now := s.asked.Load(); now != before {
				s.t.Errorf("asked the API server %d times in an hour in which nothing happened", now-before)
			}
		},
		"are not served": func(s *ruleSite) {
			s.follow()
			s.want(true)
			s.pass(time.Hour)
			if asked := s.asked.Load(); asked > 20 {
				s.t.Errorf("asked %d times in an hour", asked)
			}
			s.served.Store(true) // by an upgrade
			s.make("gpu-3")
			s.pass(2 * askForRules)
			s.want(true, "gpu-3")
		},
		"are served no more": func(s *ruleSite) {
			s.served.Store(true)
			s.make("gpu-1")
			s.follow()
			s.want(true, "gpu-1")
			s.served.Store(false)
			s.watch.failed(s.t.Context(), nil, apierrors.NewNotFound(resourceapi.Resource(taintRules), ""))
			s.pass(time.Second)
			s.want(true)
		},
		"may not be read": func(s *ruleSite) {
			s.served.Store(true)
			s.refused.Store(true)
			s.make("gpu-1")
			s.follow()
			s.want(true) // claims go on
			s.refused.Store(false)
			s.pass(time.Minute)
			s.want(true, "gpu-1")
		},
		"nobody answers": func(s *ruleSite) {
			s.away.Store(true)
			s.served.Store(true)
			s.make("gpu-1")
			s.follow()
			s.want(false) // nor would anything else be known
			s.pass(time.Hour)
			if asked := s.asked.Load(); asked > 40 {
				s.t.Errorf("asked %d times in an hour", asked)
			}
			s.away.Store(false)
			s.pass(2 * askForRules)
			s.want(true, "gpu-1")
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(newRuleSite(t)) })
		})
	}
}
