package pullsecret

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Reason is why a namespace does not have its copy. It is also the reason of the
// event that says so.
type Reason string

// Reasons of problems.
const (
	// ReasonSource is for a Secret that is not there, or of another type. Copies
	// stay as they are.
	ReasonSource Reason = "PullSecretSourceUnusable"
	// ReasonTaken is for namespaces with a Secret of that name which is not a copy.
	ReasonTaken Reason = "PullSecretNameTaken"
	// ReasonFailed is for errors of the API.
	ReasonFailed Reason = "PullSecretFailed"
)

// Reasons are all reasons of problems.
func Reasons() []Reason { return []Reason{ReasonSource, ReasonTaken, ReasonFailed} }

// Metrics are what a copier tells a monitoring system. They are there while this
// replica leads.
type Metrics struct {
	mu         sync.Mutex
	namespaces map[string]state

	copies, problem *prometheus.Desc
}

// state is how it stands with one namespace.
type state struct {
	copied  bool
	problem Reason
}

// NewMetrics registers a copier's metrics.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		namespaces: map[string]state{},
		copies:     prometheus.NewDesc("eks_hybrid_dra_pull_secret_copies", "How many namespaces have the copy of the pull secret that they should have.", nil, nil),
		problem: prometheus.NewDesc("eks_hybrid_dra_pull_secret_problem",
			"1 while there is a problem of that reason with the pull secret in the namespace; not there otherwise.", []string{"namespace", "reason"}, nil),
	}
	return m, registry.Register(m)
}

func (m *Metrics) set(namespace string, s state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s == (state{}) {
		delete(m.namespaces, namespace)
		return
	}
	m.namespaces[namespace] = s
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) { to <- m.copies; to <- m.problem }

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copies := 0
	for namespace, s := range m.namespaces {
		if s.copied {
			copies++
		}
		if s.problem != "" {
			to <- prometheus.MustNewConstMetric(m.problem, prometheus.GaugeValue, 1, namespace, string(s.problem))
		}
	}
	to <- prometheus.MustNewConstMetric(m.copies, prometheus.GaugeValue, float64(copies))
}
