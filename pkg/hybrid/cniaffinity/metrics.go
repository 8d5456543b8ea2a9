package cniaffinity

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Metrics are what the keeper tells a monitoring system. They are there while this
// replica leads.
type Metrics struct {
	mu   sync.Mutex
	sets map[types.NamespacedName]status

	kept, problem *prometheus.Desc
	reverts       *prometheus.CounterVec
}

// status is how it stands with one DaemonSet.
type status struct {
	side v1alpha1.NodeSide
	// problem is empty where nothing is left to do here.
	problem Reason
	// pending tells that an operator has not done yet what it is told.
	pending bool
}

// NewMetrics registers the keeper's metrics.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	const prefix = "eks_hybrid_dra_cni_affinity_"
	m := &Metrics{
		sets: map[types.NamespacedName]status{},
		kept: prometheus.NewDesc(prefix+"kept",
			"1 if the DaemonSet is kept on the nodes that are configured, else 0. Not there while the DaemonSet is not there.", []string{"namespace", "name", "nodes"}, nil),
		problem: prometheus.NewDesc(prefix+"problem",
			"1 while there is a problem of that reason with the DaemonSet; not there otherwise.", []string{"namespace", "name", "reason"}, nil),
		reverts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "reverts_total", Help: "How often somebody else has taken the node affinity away that this controller had written."}, []string{"namespace", "name"}),
	}
	if err := registry.Register(m.reverts); err != nil {
		return nil, err
	}
	return m, registry.Register(m)
}

func (m *Metrics) set(name types.NamespacedName, s status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[name] = s
}

func (m *Metrics) forget(name types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sets, name)
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) { to <- m.kept; to <- m.problem }

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, s := range m.sets {
		kept := 0.0
		if s.problem == "" && !s.pending {
			kept = 1
		}
		if s.side != v1alpha1.AnyNodes {
			to <- prometheus.MustNewConstMetric(m.kept, prometheus.GaugeValue, kept, name.Namespace, name.Name, string(s.side))
		}
		if s.problem != "" {
			to <- prometheus.MustNewConstMetric(m.problem, prometheus.GaugeValue, 1, name.Namespace, name.Name, string(s.problem))
		}
	}
}
