package driver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/version"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
)

// metricsNamespace begins the name of every metric of the plugin.
const metricsNamespace = "eks_hybrid_dra"

// Values of the label "outcome".
const (
	outcomeSuccess = "success"
	outcomeError   = "error"
)

// Metrics are what the plugin tells a monitoring system.
type Metrics struct {
	registry         prometheus.Registerer
	prepareSeconds   *prometheus.HistogramVec
	unprepareSeconds *prometheus.HistogramVec
	publishedDevices *prometheus.GaugeVec
	discoveryErrors  *prometheus.CounterVec
	faultyDevices    *prometheus.GaugeVec
	unhealthyDevice  *prometheus.GaugeVec
	deviceProblems   *prometheus.CounterVec
	withheldDevices  prometheus.Gauge
	withheldPairs    prometheus.Gauge
	pairs            *prometheus.GaugeVec
	publishErrors    prometheus.Counter
	handovers        handoverMetrics
}

// NewMetrics registers the plugin's metrics.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	// From what a warm cache answers to kubelet's own limit of 45 s.
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 45}
	m := &Metrics{
		registry: registry,
		prepareSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "prepare_duration_seconds", Buckets: buckets,
			Help: "Time to prepare one claim, waiting for a device's release included.",
		}, []string{"outcome"}),
		unprepareSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "unprepare_duration_seconds", Buckets: buckets,
			Help: "Time to unprepare one claim.",
		}, []string{"outcome"}),
		publishedDevices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "published_devices",
			Help: "Devices that this node has to give, those with problems included.",
		}, []string{"kind"}),
		discoveryErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "discovery_errors_total",
			Help: "Looks at the hardware that failed, for one device or for a whole family (reason Family).",
		}, []string{"family", "reason"}),
		faultyDevices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "faulty_devices",
			Help: "Devices that are there but could not be used at the last look.",
		}, []string{"family", "reason"}),
		unhealthyDevice: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "unhealthy_device",
			Help: "1 while a device has a problem of that reason; not there otherwise.",
		}, []string{"family", "device", "reason"}),
		deviceProblems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "device_problems_total",
			Help: "How often a device got a problem of that reason.",
		}, []string{"family", "reason"}),
		withheldDevices: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "withheld_devices",
			Help: "Devices with problems that are not published because the API server does not keep taints.",
		}),
		withheldPairs: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "withheld_pairs",
			Help: "Composite devices that are not published because the API server does not keep counters.",
		}),
		pairs: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsNamespace, Name: "gpu_vf_pair",
			Help: "1 for each GPU that could have a VF beside it; vf and nic are empty for one that has none, and reason says why.",
		}, []string{"gpu", "vf", "nic", "relation", "reason"}),
		publishErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "publish_errors_total",
			Help: "Errors while writing ResourceSlices.",
		}),
		handovers: newHandoverMetrics(),
	}
	info := version.Get()
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Name: "build_info", Help: "Always 1; the labels tell which build runs.",
		ConstLabels: prometheus.Labels{"version": info.GitVersion, "commit": info.GitCommit, "go": info.GoVersion},
	}, func() float64 { return 1 })
	for _, c := range []prometheus.Collector{
		m.prepareSeconds, m.unprepareSeconds, m.publishedDevices,
		m.discoveryErrors, m.faultyDevices,
		m.unhealthyDevice, m.deviceProblems, m.withheldDevices, m.withheldPairs, m.pairs, m.publishErrors, build,
		m.handovers.devices, m.handovers.total, m.handovers.unmanageable,
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func observe(h *prometheus.HistogramVec, start time.Time, err error) {
	outcome := outcomeSuccess
	if err != nil {
		outcome = outcomeError
	}
	h.WithLabelValues(outcome).Observe(time.Since(start).Seconds())
}

// discovered records what one look at the hardware found.
func (m *Metrics) discovered(found []discovery, all []owned) {
	m.publishedDevices.Reset()
	m.faultyDevices.Reset()
	counts := map[device.Kind]int{}
	for _, f := range found {
		name := f.family.Name()
		if f.err != nil {
			m.discoveryErrors.WithLabelValues(name, "Family").Inc()
		}
		for _, fault := range f.inventory.Faults {
			m.discoveryErrors.WithLabelValues(name, fault.Reason).Inc()
			m.faultyDevices.WithLabelValues(name, fault.Reason).Inc()
		}
	}
	for _, d := range all {
		counts[d.Kind]++
	}
	for kind, n := range counts {
		m.publishedDevices.WithLabelValues(string(kind)).Set(float64(n))
	}
}

func (m *Metrics) problemBegan(d owned, reason string) {
	m.unhealthyDevice.WithLabelValues(d.owner(), d.Name, reason).Set(1)
	m.deviceProblems.WithLabelValues(d.owner(), reason).Inc()
}

func (m *Metrics) problemEnded(d owned, reason string) {
	m.unhealthyDevice.DeleteLabelValues(d.owner(), d.Name, reason)
}

// withheld records which devices are not published.
func (m *Metrics) withheld(devices []owned, kept features) {
	var sick, composites int
	for _, d := range devices {
		if len(d.problems) > 0 && !kept.taints {
			sick++
		}
		if d.isComposite() && !kept.counters {
			composites++
		}
	}
	m.withheldDevices.Set(float64(sick))
	m.withheldPairs.Set(float64(composites))
}

// paired records which GPU has which VF beside it.
func (m *Metrics) paired(all []pairs.Pair) {
	m.pairs.Reset()
	for _, p := range all {
		nic := ""
		if p.VF != "" {
			nic = p.NIC.String()
		}
		m.pairs.WithLabelValues(p.GPU, p.VF, nic, p.Relation.String(), p.Why).Set(1)
	}
}
