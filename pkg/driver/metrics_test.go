package driver

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func TestMetricsOfDiscovery(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	gpus := newFakeGPUs("gpu-0", "gpu-1")
	gpus.faults = []device.Fault{
		{Subject: "GPU 2", Reason: "NVMLHandle", Err: errors.New("lost")},
		{Subject: "GPU 3", Reason: "NVMLHandle", Err: errors.New("lost")},
	}
	inv, err := newInventory([]Family{gpus}, metrics)
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		if err := inv.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	look()
	expect(t, registry, `
# HELP eks_hybrid_dra_discovery_errors_total Looks at the hardware that failed, for one device or for a whole family (reason Family).
# TYPE eks_hybrid_dra_discovery_errors_total counter
eks_hybrid_dra_discovery_errors_total{family="gpu",reason="NVMLHandle"} 4
# HELP eks_hybrid_dra_faulty_devices Devices that are there but could not be used at the last look.
# TYPE eks_hybrid_dra_faulty_devices gauge
eks_hybrid_dra_faulty_devices{family="gpu",reason="NVMLHandle"} 2
# HELP eks_hybrid_dra_published_devices Devices that this node has to give, those with problems included.
# TYPE eks_hybrid_dra_published_devices gauge
eks_hybrid_dra_published_devices{kind="gpu"} 2
`, "eks_hybrid_dra_discovery_errors_total", "eks_hybrid_dra_faulty_devices", "eks_hybrid_dra_published_devices")

	// Mended GPUs are no longer counted as faulty, and a driver that is gone
	// takes all devices with it.
	gpus.faults, gpus.devices, gpus.err = nil, nil, errors.New("no driver")
	look()
	expect(t, registry, `
# HELP eks_hybrid_dra_discovery_errors_total Looks at the hardware that failed, for one device or for a whole family (reason Family).
# TYPE eks_hybrid_dra_discovery_errors_total counter
eks_hybrid_dra_discovery_errors_total{family="gpu",reason="Family"} 1
eks_hybrid_dra_discovery_errors_total{family="gpu",reason="NVMLHandle"} 4
`, "eks_hybrid_dra_discovery_errors_total", "eks_hybrid_dra_faulty_devices", "eks_hybrid_dra_published_devices")
}

func TestMetricsOfClaims(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	n.gpus.fail["gpu-1"] = errors.New("fell off the bus")
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	if err := prepare(t, d, newClaim("b", []string{"gpu-1"})).Err; err == nil {
		t.Fatal("prepared")
	}
	n.processes.pods["pod-a"] = true
	if err := unprepare(t, d, newClaim("a", nil)); err == nil {
		t.Fatal("unprepared under a running pod")
	}
	for metric, want := range map[string]map[string]uint64{
		"eks_hybrid_dra_prepare_duration_seconds":   {"success": 1, "error": 1},
		"eks_hybrid_dra_unprepare_duration_seconds": {"error": 1},
	} {
		got := counts(t, n.registry, metric)
		for outcome, count := range want {
			if got[outcome] != count {
				t.Errorf("%s: %d calls with outcome %s, want %d", metric, got[outcome], outcome, count)
			}
		}
	}
	expect(t, n.registry, `
# HELP eks_hybrid_dra_prepared_devices Devices that are prepared for a claim now, admin access included.
# TYPE eks_hybrid_dra_prepared_devices gauge
eks_hybrid_dra_prepared_devices{family="gpu"} 1
`, "eks_hybrid_dra_prepared_devices")
	d.HandleError(t.Context(), errors.Join(errors.New("refused"), errRecoverable()), "publish")
	if got := testutil.ToFloat64(d.options.Metrics.publishErrors); got != 1 {
		t.Errorf("publish errors: %v, want 1", got)
	}
}

func newMetrics(t *testing.T) *Metrics {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

func TestMetricsFollowTheConventions(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.gpus.set("gpu-0", linkDown)
	n.gpus.faults = []device.Fault{{Subject: "GPU 2", Reason: "NVMLHandle", Err: errors.New("lost")}}
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	mustUnprepare(t, d, newClaim("a", nil))
	remarks, err := testutil.GatherAndLint(n.registry)
	if err != nil || len(remarks) > 0 {
		t.Errorf("%v, %v", remarks, err)
	}
}

func expect(t *testing.T, registry prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

// counts returns the number of observations of a histogram by outcome.
func counts(t *testing.T, registry prometheus.Gatherer, name string) map[string]uint64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			found[metric.GetLabel()[0].GetValue()] = metric.GetHistogram().GetSampleCount()
		}
	}
	return found
}
