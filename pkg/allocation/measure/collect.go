package measure

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
)

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	m.durations.Describe(to)
	m.errors.Describe(to)
	to <- m.pending
	to <- m.usage
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	leading := m.leading
	m.mu.Unlock()
	if !leading {
		return
	}
	m.durations.Collect(to)
	m.errors.Collect(to)
	for l, n := range m.pendingByLabels() {
		to <- prometheus.MustNewConstMetric(m.pending, prometheus.GaugeValue, float64(n), l.class, l.kind, l.allocator)
	}
	m.fleet.Usage(func(node, kind string, taken, devices int) {
		if devices > 0 {
			to <- prometheus.MustNewConstMetric(m.usage, prometheus.GaugeValue, float64(taken)/float64(devices), node, kind)
		}
	})
}

func (m *Metrics) pendingByLabels() map[labels]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	pending := map[labels]int{}
	for l := range m.shown {
		pending[l] = 0
	}
	for _, w := range m.waiting {
		if m.ours(w.asked) {
			pending[m.labelsOf(w.asked)]++
		}
	}
	for l := range pending {
		m.shown[l] = true
	}
	return pending
}

// ClassGone drops the series of a DeviceClass that was deleted.
func (m *Metrics) ClassGone(name string) {
	m.classes.Forget(name)
	m.durations.DeletePartialMatch(prometheus.Labels{"device_class": name})
	m.errors.DeletePartialMatch(prometheus.Labels{"device_class": name})
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.shown {
		if l.class == name && name != ClassOther {
			delete(m.shown, l)
		}
	}
}

// labels are the values of the labels that all metrics of claims have.
type labels struct{ class, kind, allocator string }

// labelsOf returns the labels of a claim by the first class of this driver that
// it asks for.
func (m *Metrics) labelsOf(asked []classes.Asked) labels {
	l := labels{class: ClassOther, kind: classes.KindMixed, allocator: AllocatorScheduler}
	found := false
	for _, a := range asked {
		class := m.classes.Read(m.fleet.Class(a.Class))
		switch {
		case !class.Ours:
		case !found:
			found = true
			l.class, l.kind = a.Class, class.Kind
			if class.Managed {
				l.allocator = AllocatorController
			}
		case class.Kind != l.kind:
			l.kind = classes.KindMixed
		}
	}
	return l
}
