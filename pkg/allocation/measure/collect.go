package measure

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
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
	for _, node := range m.fleet.View().Nodes() {
		for kind, ratio := range usageOf(node) {
			to <- prometheus.MustNewConstMetric(m.usage, prometheus.GaugeValue, ratio, node.Name, kind)
		}
	}
}

// usageOf returns for each kind which part of a node's devices cannot be given
// any more, whoever gives them.
func usageOf(node *fleet.Node) map[string]float64 {
	devices, free := map[string]int{}, map[string]int{}
	for _, u := range node.Usage() {
		kind := string(u.Kind)
		if !slices.Contains(device.Kinds(), u.Kind) { // of another release, or not told
			kind = classes.KindMixed
		}
		devices[kind] += u.Total
		free[kind] += u.Free
	}
	ratios := map[string]float64{}
	for kind, n := range devices {
		ratios[kind] = 1 - float64(free[kind])/float64(n)
	}
	return ratios
}

// pendingByLabels counts the claims that wait. Each class of this driver is
// there: a series that comes and goes makes poor graphs.
func (m *Metrics) pendingByLabels() map[labels]int {
	view := m.fleet.View()
	pending := map[labels]int{}
	all, err := view.List()
	if err != nil {
		return nil // it never fails
	}
	for _, class := range all {
		if l, ours := m.labelsOf(view, []classes.Asked{{Class: class.Name}}); ours {
			pending[l] = 0
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.waiting {
		if l, ours := m.labelsOf(view, w.asked); ours {
			pending[l]++
		}
	}
	return pending
}

// ClassGone drops the series of a DeviceClass that was deleted.
func (m *Metrics) ClassGone(name string) {
	m.classes.Forget(name)
	m.durations.DeletePartialMatch(prometheus.Labels{"device_class": name})
	m.errors.DeletePartialMatch(prometheus.Labels{"device_class": name})
}

// labels are the values of the labels that all metrics of claims have.
type labels struct{ class, kind, allocator string }

// labelsOf returns the labels of a claim by the first class of this driver that
// it asks for, and whether there is one.
func (m *Metrics) labelsOf(view *fleet.View, asked []classes.Asked) (labels, bool) {
	l := labels{class: ClassOther, kind: classes.KindMixed, allocator: AllocatorScheduler}
	found := false
	for _, a := range asked {
		class := m.class(view, a.Class)
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
	return l, found
}

func (m *Metrics) class(view *fleet.View, name string) classes.Class {
	class, err := view.Get(name)
	if err != nil {
		return classes.Class{}
	}
	return m.classes.Read(class)
}
