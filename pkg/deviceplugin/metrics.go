package deviceplugin

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	metricsNamespace = "eks_hybrid_dra"
	metricsSubsystem = "device_plugin"
)

// States of a device in metrics.
const (
	stateHealthy   = "healthy"
	stateUnhealthy = "unhealthy"
	// stateWaiting is a device that is to be served here and is not held yet: a claim
	// has it, it settles, or the API server does not answer.
	stateWaiting = "waiting"
	// stateDraining is a device that is for claims, and that a pod has not given
	// back.
	stateDraining = "draining"
)

// metrics are what the device plugin tells a monitoring system.
type metrics struct {
	devices       *prometheus.GaugeVec
	allocations   *prometheus.CounterVec
	registrations *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		devices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "devices",
			Help: "Devices of the device plugin by resource and state: healthy, unhealthy, waiting (for a claim to give them back, to settle, or for the API server), or draining: for claims, and not given back by a pod yet.",
		}, []string{"resource", "state"}),
		allocations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "allocations_total",
			Help: "How often kubelet asked for the devices of a container.",
		}, []string{"resource", "outcome"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "registrations_total",
			Help: "How often a resource was registered with kubelet.",
		}, []string{"resource", "outcome"}),
	}
	for _, c := range []prometheus.Collector{m.devices, m.allocations, m.registrations} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the device plugin: %w", err)
		}
	}
	return m, nil
}

// observe counts the devices.
func (m *metrics) observe(all items, states map[string]state) {
	m.devices.Reset()
	for _, i := range all {
		s, ok := states[i.id]
		if !ok {
			continue
		}
		name := ""
		if i.resource != nil {
			name = i.resource.Name
		}
		m.devices.WithLabelValues(name, stateName(i, s)).Inc()
	}
}

func stateName(i *item, s state) string {
	switch {
	case !i.wanted:
		return stateDraining
	case !s.held:
		return stateWaiting
	case s.problem != "":
		return stateUnhealthy
	}
	return stateHealthy
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "success"
}
