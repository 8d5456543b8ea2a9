package registrytrust

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/containerdconfig"
)

// metricsNamespace begins the name of every metric.
const metricsNamespace = "eks_hybrid_dra"

// Metrics are what the agent tells a monitoring system: always the last report,
// so that a registry that is no longer configured is not there any more.
type Metrics struct {
	last atomic.Pointer[Report]

	trusted, problem, caExpires, certificateExpires, configPath *prometheus.Desc
}

// NewMetrics registers the agent's metrics.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, "registry", name), help, labels, nil)
	}
	m := &Metrics{
		trusted: desc("trusted", "1 if the last handshake of this node with the registry succeeded with the certificates that containerd uses, else 0.", "registry"),
		problem: desc("problem", "1 while there is a problem of that reason; not there otherwise. No registry: it is one of the whole node.", "registry", "reason"),
		caExpires: desc("ca_expiry_timestamp_seconds",
			"When the first of the certificates that containerd trusts for the registry expires, in seconds since 1970.", "registry"),
		certificateExpires: desc("certificate_expiry_timestamp_seconds",
			"When the certificate expires that the registry showed last, in seconds since 1970.", "registry"),
		configPath: desc("containerd_config_path", "1 for what containerd's config_path was found to be: set, unset, elsewhere, list or unknown.", "state"),
	}
	return m, registry.Register(m)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{m.trusted, m.problem, m.caExpires, m.certificateExpires, m.configPath} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	report := m.last.Load()
	if report == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	timestamp := func(desc *prometheus.Desc, at time.Time, labels ...string) {
		if !at.IsZero() {
			gauge(desc, float64(at.Unix()), labels...)
		}
	}
	for _, reason := range reasonsOf(report.Problems) {
		gauge(m.problem, 1, "", reason)
	}
	states := []containerdconfig.State{containerdconfig.Set, containerdconfig.Unset, containerdconfig.Elsewhere, containerdconfig.List, containerdconfig.Unknown}
	for _, state := range states {
		value := 0.0
		if state == report.ConfigPath {
			value = 1
		}
		gauge(m.configPath, value, string(state))
	}
	for _, r := range report.Registries {
		value := 0.0
		if r.Trusted {
			value = 1
		}
		gauge(m.trusted, value, r.Host)
		for _, reason := range reasonsOf(r.Problems) {
			gauge(m.problem, 1, r.Host, reason)
		}
		timestamp(m.caExpires, r.CAExpires, r.Host)
		timestamp(m.certificateExpires, r.CertificateExpires, r.Host)
	}
}
