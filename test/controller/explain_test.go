package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/explain"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// watched runs a controller of the site that also explains and measures, with
// the permissions of the deployed one, until the test ends. What it measures is
// in the registry.
func (s *site) watched() *prometheus.Registry {
	s.t.Helper()
	s.number++
	ctx, cancel := context.WithCancel(s.ctx)
	config := asController()
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: clientgoscheme.Scheme, Cache: allocation.CacheOptions(),
		Metrics: metricsserver.Options{BindAddress: "0"}, BaseContext: func() context.Context { return ctx },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	events := broadcaster.NewRecorder(clientgoscheme.Scheme, corev1.EventSource{Component: "controller"})
	known, users, registry := fleet.New(s.name), consumers.NewIndex(), prometheus.NewRegistry()
	metrics, err := measure.New(registry, measure.Options{Fleet: known})
	if err != nil {
		s.t.Fatal(err)
	}
	explainer := explain.New(explain.Options{Fleet: known, Consumers: users.Of, Recorder: events, After: time.Second})
	_, err = allocation.Setup(ctx, mgr, allocation.Options{
		Name: fmt.Sprintf("%s-%d", s.name, s.number), DriverName: s.name, Namespace: s.name,
		Client: client, Fleet: known, Consumers: users, Metrics: metrics, Observer: explainer, Events: events,
		UnusedAfter: time.Hour, GangTimeout: time.Hour, Workers: 16,
	})
	if err := errors.Join(err, mgr.Add(metrics), mgr.Add(explainer)); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return registry
}

func TestAnEventSaysWhyAClaimWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.watched()
	s.claim("impossible", gpusPerNode+1, nil)
	s.claim("a", gpusPerNode, nil)
	s.claim("b", gpusPerNode, nil)
	s.allAllocated(2)
	s.claim("waits", gpusPerNode, nil)
	s.make(claimFor("unused", s.plain, 1))
	// Its class matches the devices, which are the controller's.
	s.make(claimFor("plain", s.plain, 1))
	s.pod("plain", nil, "plain")

	count := fmt.Sprintf("2 nodes publish devices of %s. Request gpu: 16 devices match class %s, 0 are free.", s.name, s.class)
	s.event("impossible", explain.ReasonImpossible, "Request gpu needs 9 devices on one node, and no node has that, even if all devices were free ("+s.nodes[0]+" has 8). "+count)
	s.event("waits", explain.ReasonWaiting, "Request gpu needs 8 devices on one node, and no device is free. "+count)
	s.event("unused", explain.ReasonUnasked, "No pod uses this claim")
	s.event("plain", explain.ReasonImpossible, "16 are for claims of the other kind of class (managed or not), 0 are free")

	// What changes is said: a machine's devices change hands.
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "waits", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, node := range s.nodes {
		s.publish(node, settling, 2)
	}
	s.event("impossible", explain.ReasonWaiting, "settling")
	for _, claim := range []string{"a", "b"} {
		if story := s.story(); strings.Contains(story, "ResourceClaim "+claim+": "+explain.ReasonWaiting) {
			t.Errorf("claim %s was explained, though it was allocated at once:\n%s", claim, story)
		}
	}
}
