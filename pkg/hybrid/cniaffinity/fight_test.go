package cniaffinity

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Each revert costs more time than the one before, until it has stayed for long.
func TestWaitsGrow(t *testing.T) {
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	clock := testingclock.NewFakePassiveClock(time.Unix(0, 0))
	k := New(Options{Client: client(), Metrics: metrics, Clock: clock})
	name := types.NamespacedName{Namespace: "kube-system", Name: "cilium"}
	if wait := k.resist(name, v1alpha1.HybridNodes, false); wait != 0 {
		t.Errorf("the first write waits for %s", wait)
	}
	k.written(name, v1alpha1.HybridNodes)
	revert := func() time.Duration {
		wait := k.resist(name, v1alpha1.HybridNodes, true)
		// Looking again meanwhile is no further revert.
		clock.SetTime(clock.Now().Add(wait / 2))
		if again := k.resist(name, v1alpha1.HybridNodes, true); again != wait-wait/2 {
			t.Errorf("half way through %s, %s are left", wait, again)
		}
		clock.SetTime(clock.Now().Add(wait - wait/2))
		if left := k.resist(name, v1alpha1.HybridNodes, true); left != 0 {
			t.Errorf("after %s, %s are left", wait, left)
		}
		k.written(name, v1alpha1.HybridNodes)
		return wait
	}
	var waits []time.Duration
	for range 10 {
		waits = append(waits, revert())
	}
	want := []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	if left := k.settle(name); left != 2*time.Hour {
		t.Errorf("it is forgotten after %s", left)
	}
	clock.SetTime(clock.Now().Add(2 * time.Hour))
	if left := k.settle(name); left != 0 {
		t.Errorf("%s more until it is forgotten", left)
	}
	if wait := revert(); wait != 0 {
		t.Errorf("the first revert after a long time waits for %s", wait)
	}
	// Another side is not a revert.
	if wait := k.resist(name, v1alpha1.CloudNodes, false); wait != 0 {
		t.Errorf("the other side waits for %s", wait)
	}
}
