package controller

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// measured returns the value of a series, for a histogram how many were
// observed; -1 if there is none.
func measured(t *testing.T, registry *prometheus.Registry, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, metric := range family.GetMetric() {
			for _, pair := range metric.GetLabel() {
				if want, ok := labels[pair.GetName()]; ok && want != pair.GetValue() {
					continue series
				}
			}
			if h := metric.GetHistogram(); h != nil {
				return float64(h.GetSampleCount())
			}
			return metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return -1
}

func TestMetricsOfBothAllocators(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.publish(s.nodes[1], unmanaged, 2)
	registry := s.watched()
	wait := func(name string, labels map[string]string, want float64) {
		t.Helper()
		s.eventually(fmt.Sprintf("%s%v is %v", name, labels, want), func() (bool, string) {
			got := measured(t, registry, name, labels)
			return got == want, fmt.Sprint(got)
		})
	}
	s.claim("ours", 6, nil)
	s.allocated("ours")
	s.claim("waits", 6, nil)
	s.make(claimFor("theirs", s.plain, 2))
	s.pod("theirs", nil, "theirs")
	s.bound("theirs")

	ours := map[string]string{"device_class": s.class, "kind": "gpu", "allocator": "controller"}
	theirs := map[string]string{"device_class": s.plain, "kind": "gpu", "allocator": "scheduler"}
	wait("dra_allocation_duration_seconds", ours, 1)
	wait("dra_allocation_duration_seconds", theirs, 1)
	wait("dra_pending_claims_total", ours, 1)
	wait("dra_pending_claims_total", theirs, 0)
	wait("dra_resource_utilization_ratio", map[string]string{"node": s.nodes[0], "kind": "gpu"}, .75)
	wait("dra_resource_utilization_ratio", map[string]string{"node": s.nodes[1], "kind": "gpu"}, .25)
}
