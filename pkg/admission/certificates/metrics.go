package certificates

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Register registers the metric of the certificate that this replica serves.
// There is no series as long as it serves none.
func (c *Certificates) Register(registry prometheus.Registerer) error {
	err := registry.Register(&expiry{certificates: c, desc: prometheus.NewDesc(
		"eks_hybrid_dra_webhook_certificate_expiry_timestamp_seconds",
		"When the certificate expires that this replica serves the webhook with, in seconds since 1970.", nil, nil)})
	if err != nil {
		return fmt.Errorf("register the metric of the webhook's certificate: %w", err)
	}
	return nil
}

type expiry struct {
	certificates *Certificates
	desc         *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (e *expiry) Describe(to chan<- *prometheus.Desc) { to <- e.desc }

// Collect implements [prometheus.Collector].
func (e *expiry) Collect(to chan<- prometheus.Metric) {
	if served := e.certificates.served.Load(); served != nil {
		to <- prometheus.MustNewConstMetric(e.desc, prometheus.GaugeValue, float64(served.Leaf.NotAfter.Unix()))
	}
}
