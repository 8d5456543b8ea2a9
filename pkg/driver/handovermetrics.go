package driver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
)

// handoverMetrics are about who gives the devices to claims.
type handoverMetrics struct {
	devices      *prometheus.GaugeVec
	total        *prometheus.CounterVec
	unmanageable prometheus.Gauge
}

func newHandoverMetrics() handoverMetrics {
	return handoverMetrics{
		devices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "managed_devices",
			Help: "Devices that kube-scheduler does not give to claims: allocator is controller for those that the controller gives, settling for those that nobody does for the moment.",
		}, []string{"kind", "allocator"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "handovers_total",
			Help: "How often a device got another allocator, controller or scheduler.",
		}, []string{"kind", "allocator"}),
		unmanageable: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "unmanageable_devices",
			Help: "Devices that the configuration gives to the controller and that are kube-scheduler's because the API server does not keep taints.",
		}),
	}
}

// have records who gives the devices that are there.
func (m handoverMetrics) have(w wantedAllocators, allocators map[string]managed.Allocator) {
	m.devices.Reset()
	for name, allocator := range allocators {
		if kind, there := w.kinds[name]; there {
			m.devices.WithLabelValues(kind, string(allocator)).Inc()
		}
	}
}

func (m handoverMetrics) done(w wantedAllocators, names []string, allocator managed.Allocator) {
	for _, name := range names {
		m.total.WithLabelValues(w.kinds[name], string(allocator)).Inc()
	}
}
