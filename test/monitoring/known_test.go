package monitoring

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/client-go/kubernetes/fake"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/admission/certificates"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/nodelabels"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/podprocs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/cniaffinity"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/pullsecret"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust"

	_ "sigs.k8s.io/controller-runtime/pkg/webhook" // has metrics
)

// catalog has the labels of each metric of our programs.
type catalog map[string][]string

// registerer notes what is registered, with the labels that Prometheus adds.
type registerer struct {
	prometheus.Registerer
	catalog catalog
	added   []string
}

func (r registerer) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 1000)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		text := desc.String()
		name := regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(text)[1]
		labels := regexp.MustCompile(`variableLabels: \{([^}]*)\}`).FindStringSubmatch(text)[1]
		r.catalog.add(name, append(strings.Split(labels, ","), r.added...))
	}
	return nil
}

// add notes a metric, and what it may have if it is a histogram.
func (c catalog) add(name string, labels []string) {
	c[name] = labels
	c[name+"_bucket"] = append(slices.Clone(labels), "le")
	c[name+"_count"], c[name+"_sum"] = labels, labels
}

// known returns the metrics of all our programs as Prometheus has them when the
// chart's monitors say how they are scraped.
func known(t *testing.T) catalog {
	t.Helper()
	c := catalog{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	everywhere := []string{"job", "namespace", "pod", "instance"}
	onNodes := registerer{catalog: c, added: append([]string{"node"}, everywhere...)}
	controller := registerer{catalog: c, added: everywhere}

	_, err := measure.New(controller, measure.Options{Fleet: fleet.New("eks-hybrid-dra")})
	must(err)
	_, err = cniaffinity.NewMetrics(controller)
	must(err)
	_, err = pullsecret.NewMetrics(controller)
	must(err)
	c.add("eks_hybrid_dra_hybrid_config_valid", everywhere) // made with the manager; docs/hybrid-nodes.md has it
	must(certificates.New(fake.NewClientset(), certificates.Options{}).Register(controller))
	for name, labels := range map[string][]string{
		"leader_election_master_status":              {"name"},
		"controller_runtime_webhook_requests_total":  {"webhook", "code"},
		"controller_runtime_webhook_latency_seconds": {"webhook"},
	} {
		// A registry does not tell what it has, but it refuses the same name
		// with other words.
		err := ctrlmetrics.Registry.Register(prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "another"}, labels))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("controller-runtime has no metric %s", name)
		}
		c.add(name, append(labels, everywhere...))
	}

	_, err = registrytrust.NewMetrics(onNodes)
	must(err)
	metrics, err := driver.NewMetrics(onNodes)
	must(err)
	_, err = driver.New(t.Context(), driver.Options{
		DriverName: "eks-hybrid-dra", NodeName: "dgx-0", DataDir: t.TempDir(), RegistrarDir: t.TempDir(), CDIDir: t.TempDir(),
		BootID: "boot", KubeClient: fake.NewClientset(), Processes: podprocs.New("/proc"), Metrics: metrics,
	})
	must(err)
	_, err = nodelabels.New(nodelabels.Options{}, onNodes)
	must(err)
	must(onNodes.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
	c.add("up", onNodes.added)
	return c
}

// check reports what an expression asks for and nobody has.
func (c catalog) check(t *testing.T, where, expression string) {
	t.Helper()
	asked := read(expression)
	if len(asked.Selectors) == 0 {
		t.Errorf("%s: %q asks for no metric", where, expression)
	}
	var all []string
	for _, s := range asked.Selectors {
		labels, ok := c[s.Metric]
		if !ok {
			t.Errorf("%s: no program has the metric %s", where, s.Metric)
			continue
		}
		all = append(all, labels...)
		for _, label := range s.Labels {
			if !slices.Contains(labels, label) {
				t.Errorf("%s: metric %s has no label %s, only %v", where, s.Metric, label, labels)
			}
		}
	}
	for _, label := range asked.Labels {
		if !slices.Contains(all, label) {
			t.Errorf("%s: none of the metrics has the label %s: %s", where, label, expression)
		}
	}
}
