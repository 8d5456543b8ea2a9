package driver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// preparedCollector counts the devices in the claims' records whenever it is
// asked: the records are the truth, and another instance of the plugin may
// have written them.
type preparedCollector struct {
	store *claimstore.Store
	desc  *prometheus.Desc
}

func newPreparedCollector(store *claimstore.Store) *preparedCollector {
	return &preparedCollector{store: store, desc: prometheus.NewDesc(
		prometheus.BuildFQName(metricsNamespace, "", "prepared_devices"),
		"Devices that are prepared for a claim now, admin access included.",
		[]string{"family"}, nil)}
}

// Describe implements [prometheus.Collector].
func (p *preparedCollector) Describe(descs chan<- *prometheus.Desc) { descs <- p.desc }

// Collect implements [prometheus.Collector].
func (p *preparedCollector) Collect(metrics chan<- prometheus.Metric) {
	uids, err := p.store.Claims()
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(p.desc, err)
		return
	}
	counts := map[string]int{}
	for _, uid := range uids {
		record, err := p.store.Load(uid)
		if err != nil || record == nil { // set aside, or unprepared in between
			continue
		}
		for _, entry := range record.Devices {
			counts[entry.Family]++
		}
	}
	for family, n := range counts {
		metrics <- prometheus.MustNewConstMetric(p.desc, prometheus.GaugeValue, float64(n), family)
	}
}
