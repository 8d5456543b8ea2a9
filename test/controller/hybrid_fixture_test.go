package controller

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
)

// hybridSite is a namespace with a release of the chart, of which only what is for
// hybrid nodes is there: its configuration, and what the controller may do. Its
// nodes, some hybrid and some in the cloud, run DaemonSets only.
type hybridSite struct {
	*site
	release string
	config  string // the file
	admin   dynamic.Interface
}

// newHybridSite makes nodes; the first ones are hybrid.
func newHybridSite(t *testing.T, hybridNodes, cloudNodes int) *hybridSite {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	namespace, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "hybrid-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := dynamic.NewForConfig(cluster.Rest)
	if err != nil {
		t.Fatal(err)
	}
	h := &hybridSite{
		site:    &site{t: t, ctx: ctx, name: namespace.Name},
		release: namespace.Name + "-eks-hybrid-dra", config: filepath.Join(t.TempDir(), "hybrid.yaml"), admin: admin,
	}
	t.Cleanup(func() {
		h.clear()
		cancel()
	})
	for i := range hybridNodes + cloudNodes {
		name := fmt.Sprintf("%s-%02d", h.name, i)
		h.nodes = append(h.nodes, name)
		h.node(name)
		if i < hybridNodes {
			h.label(name, "hybrid")
		}
	}
	return h
}

// label says of which type a node is.
func (h *hybridSite) label(node, value string) {
	h.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, v1alpha1.LabelComputeType, value)
	if _, err := cluster.Client.CoreV1().Nodes().Patch(h.ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// helmProgram returns helm, and builds it where no HELM_BIN is given.
func helmProgram(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("HELM_BIN"); path != "" {
		return path
	}
	path := filepath.Join(cluster.Root, "bin", "helm")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(cluster.Root, "tools", "helm"), "-o", path, "helm.sh/helm/v4/cmd/helm").CombinedOutput()
	if err != nil {
		t.Fatalf("build helm: %v\n%s", err, out)
	}
	return path
}

// render returns templates of the chart with values in YAML.
func (h *hybridSite) render(values string, args ...string) string {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		h.t.Fatal(err)
	}
	args = append([]string{"template", h.name, filepath.Join(cluster.Root, "deployments", "helm", "eks-hybrid-dra"), "--namespace", h.name, "--values", file}, args...)
	command := exec.CommandContext(h.ctx, helmProgram(h.t), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	var errs strings.Builder
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		h.t.Fatalf("helm %v: %v\n%s", args, err, errs.String())
	}
	return string(out)
}

// install makes what the chart makes for hybrid nodes, and takes it away again when
// the test ends.
func (h *hybridSite) install(values string) {
	h.t.Helper()
	rendered := h.render(values)
	var wanted []string
	for object := range strings.SplitSeq(rendered, "\n---\n") {
		if strings.Contains(object, "/templates/hybrid/") || strings.Contains(object, "/templates/controller/rbac.yaml") {
			wanted = append(wanted, object)
		}
	}
	file := filepath.Join(h.t.TempDir(), "hybrid.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(wanted, "\n---\n")), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if _, err := cluster.Kubectl(h.ctx, "apply", "-f", file); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if _, err := cluster.Kubectl(h.ctx, "delete", "--ignore-not-found", "--wait=false", "-f", file); err != nil {
			h.t.Error(err)
		}
	})
	h.configure(h.rendered(rendered))
}

// rendered returns the file that the chart gives the controller.
func (h *hybridSite) rendered(all string) string {
	h.t.Helper()
	_, content, ok := strings.Cut(all, "  hybrid.yaml: |\n")
	if !ok {
		h.t.Fatalf("the chart has no configuration of hybrid nodes:\n%s", all)
	}
	content, _, _ = strings.Cut(content, "\n---\n")
	var out strings.Builder
	for line := range strings.Lines(content) {
		out.WriteString(strings.TrimPrefix(line, "    "))
	}
	return out.String()
}

// configure replaces the controller's file as kubelet would: at once.
func (h *hybridSite) configure(content string) {
	h.t.Helper()
	if err := os.WriteFile(h.config+".new", []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(h.config+".new", h.config); err != nil {
		h.t.Fatal(err)
	}
}

// with returns the file for a configuration.
func with(fields string) string {
	return "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: HybridConfig\n" + fields
}

// as returns the way of the release's controller to the API server.
func (h *hybridSite) as() *rest.Config {
	config := rest.CopyConfig(cluster.Rest)
	config.QPS = -1
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + h.name + ":" + h.release + "-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + h.name, "system:authenticated"},
	}
	return config
}

// lead runs a controller that leads until the test ends, or stop. It may do what
// the chart lets it do.
func (h *hybridSite) lead(faults *faults) (*instance, *prometheus.Registry) {
	h.t.Helper()
	h.number++
	ctx, cancel := context.WithCancel(h.ctx)
	i := &instance{s: h.site, cancel: cancel, started: make(chan struct{}), ended: make(chan error, 1)}
	logger := klog.Background().WithValues("instance", fmt.Sprintf("%s-%d", h.name, h.number))
	ctx = klog.NewContext(ctx, logger)
	config := h.as()
	if faults != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &faulty{next: next, faults: faults} })
	}
	check := func(err error) {
		if err != nil {
			h.t.Helper()
			h.t.Fatal(err)
		}
	}
	client, err := kubernetes.NewForConfig(config)
	check(err)
	objects, err := dynamic.NewForConfig(config)
	check(err)
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: clientgoscheme.Scheme, Cache: allocation.CacheOptions(), Logger: logger,
		Metrics: metricsserver.Options{BindAddress: "0"}, BaseContext: func() context.Context { return ctx },
	})
	check(err)
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	registry := prometheus.NewRegistry()
	check(hybrid.Setup(ctx, mgr, hybrid.Options{
		Client: client, Objects: objects, Namespace: h.name, ConfigFile: h.config,
		Self:   &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: h.name, Name: "controller"},
		Events: broadcaster.NewRecorder(clientgoscheme.Scheme, corev1.EventSource{Component: "controller"}), Registry: registry,
		FirstWait: 500 * time.Millisecond, LongestWait: 30 * time.Second,
	}))
	check(mgr.Add(manager.RunnableFunc(func(context.Context) error {
		close(i.started)
		return nil
	})))
	go func() { i.ended <- mgr.Start(ctx) }()
	h.t.Cleanup(i.stop)
	return i, registry
}

// metric waits until a metric with these labels, as name=value, has a value.
func (h *hybridSite) metric(registry *prometheus.Registry, name string, want float64, labels ...string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s%v is %g", name, labels, want), func() (bool, string) {
		families, err := registry.Gather()
		if err != nil {
			return false, err.Error()
		}
		var there strings.Builder
		for _, family := range families {
			if family.GetName() != name {
				continue
			}
			for _, m := range family.GetMetric() {
				found := 0
				for _, l := range m.GetLabel() {
					for _, pair := range labels {
						if pair == l.GetName()+"="+l.GetValue() {
							found++
						}
					}
				}
				if value := m.GetGauge().GetValue() + m.GetCounter().GetValue(); found == len(labels) && value == want {
					return true, ""
				}
				fmt.Fprintln(&there, m)
			}
		}
		return false, there.String()
	})
}

// daemonSet returns one that runs on this site's nodes only.
func (h *hybridSite) daemonSet(namespace, name string, affinity *corev1.Affinity) *appsv1.DaemonSet {
	labels := map[string]string{"k8s-app": name, "site": h.name}
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					HostNetwork: true, PriorityClassName: "system-node-critical", TerminationGracePeriodSeconds: ptr.To[int64](1),
					NodeSelector: map[string]string{"site": h.name},
					Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					Containers:   []corev1.Container{{Name: "agent", Image: "quay.io/example/" + name + ":v1"}},
					Affinity:     affinity,
				},
			},
		},
	}
}

// create makes a DaemonSet, which goes away with the test, and waits until it is
// known on how many nodes it runs.
func (h *hybridSite) create(set *appsv1.DaemonSet, nodes int) *appsv1.DaemonSet {
	h.t.Helper()
	sets := cluster.Client.AppsV1().DaemonSets(set.Namespace)
	made, err := sets.Create(h.ctx, set, metav1.CreateOptions{FieldManager: "owner"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := sets.Delete(ctx, set.Name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)})
		if err != nil && !apierrors.IsNotFound(err) {
			h.t.Error(err)
		}
		// No kubelet ends these pods.
		h.eventually("the pods of "+set.Name+" are gone", func() (bool, string) {
			pods := cluster.Client.CoreV1().Pods(set.Namespace)
			selector := metav1.ListOptions{LabelSelector: "k8s-app=" + set.Name + ",site=" + h.name}
			if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, selector); err != nil {
				return false, err.Error()
			}
			_, err := sets.Get(ctx, set.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err), fmt.Sprint(err)
		})
	})
	h.runs(set.Namespace, set.Name, nodes)
	return made
}

func (h *hybridSite) get(namespace, name string) *appsv1.DaemonSet {
	h.t.Helper()
	set, err := cluster.Client.AppsV1().DaemonSets(namespace).Get(h.ctx, name, metav1.GetOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return set
}

// runs waits until the DaemonSet controller wants a DaemonSet on that many nodes.
func (h *hybridSite) runs(namespace, name string, nodes int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s/%s runs on %d nodes", namespace, name, nodes), func() (bool, string) {
		set := h.get(namespace, name)
		return set.Status.ObservedGeneration == set.Generation && int(set.Status.DesiredNumberScheduled) == nodes,
			fmt.Sprintf("%+v, affinity %v, annotations %v", set.Status, set.Spec.Template.Spec.Affinity, set.Annotations)
	})
}

// selects returns affinity that needs one of these terms.
func selects(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}
}

// term needs labels, each "key operator value,value", or a node's name by "@name".
func term(requirements ...string) corev1.NodeSelectorTerm {
	t := corev1.NodeSelectorTerm{}
	for _, text := range requirements {
		if name, ok := strings.CutPrefix(text, "@"); ok {
			t.MatchFields = append(t.MatchFields, corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}})
			continue
		}
		words := strings.Fields(text)
		r := corev1.NodeSelectorRequirement{Key: words[0], Operator: corev1.NodeSelectorOperator(words[1])}
		if len(words) > 2 {
			r.Values = strings.Split(words[2], ",")
		}
		t.MatchExpressions = append(t.MatchExpressions, r)
	}
	return t
}
