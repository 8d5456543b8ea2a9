package hybrid

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/cniaffinity"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/pullsecret"
)

// EventConfig is the reason of the event that a configuration cannot be used.
const EventConfig = "HybridConfigInvalid"

// Options are what the set-up of hybrid nodes needs.
type Options struct {
	Client  kubernetes.Interface
	Objects dynamic.Interface
	// Namespace is the controller's own, with the Secret that is copied.
	Namespace string
	// ConfigFile is the path of a file with a [v1alpha1.HybridConfig]. It is
	// followed: a change counts at once, and one that is wrong changes nothing.
	ConfigFile string
	// Self is the pod of the controller, of which events tell if the configuration
	// is wrong.
	Self     *corev1.ObjectReference
	Events   record.EventRecorder
	Registry prometheus.Registerer
	// FirstWait and LongestWait are those of [cniaffinity.Options].
	FirstWait, LongestWait time.Duration
}

// runner follows the configuration while its manager leads.
type runner struct {
	Options
	keeper *cniaffinity.Keeper
	copier *pullsecret.Copier
	valid  prometheus.Gauge

	// running tells what has been switched on since the start.
	running struct{ keeper, copier bool }
	wg      sync.WaitGroup
	failed  chan error
}

// Setup adds the set-up of hybrid nodes to a manager. Only a leader does anything.
func Setup(ctx context.Context, mgr manager.Manager, options Options) error {
	affinityMetrics, err := cniaffinity.NewMetrics(options.Registry)
	if err != nil {
		return fmt.Errorf("set up the metrics of CNI affinity: %w", err)
	}
	copyMetrics, err := pullsecret.NewMetrics(options.Registry)
	if err != nil {
		return fmt.Errorf("set up the metrics of pull secrets: %w", err)
	}
	r := &runner{
		Options: options,
		keeper: cniaffinity.New(cniaffinity.Options{
			Client: options.Objects, Nodes: nodesOf(mgr), Events: options.Events, Metrics: affinityMetrics,
			FirstWait: options.FirstWait, LongestWait: options.LongestWait,
		}),
		copier: pullsecret.New(pullsecret.Options{Client: options.Client, Namespace: options.Namespace, Events: options.Events, Metrics: copyMetrics}),
		valid: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "eks_hybrid_dra_hybrid_config_valid", Help: "0 if the configuration of hybrid nodes cannot be used, and the last good one counts; else 1. It says something on the leader only.",
		}),
		failed: make(chan error, 2),
	}
	r.valid.Set(1)
	if err := options.Registry.Register(r.valid); err != nil {
		return fmt.Errorf("set up the metric of the configuration of hybrid nodes: %w", err)
	}
	nodes, err := mgr.GetCache().GetInformer(ctx, &corev1.Node{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	if _, err := nodes.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { r.keeper.NodesChanged() },
		UpdateFunc: r.nodeChanged,
		DeleteFunc: func(any) { r.keeper.NodesChanged() },
	}); err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	if err := mgr.Add(r); err != nil {
		return fmt.Errorf("add the set-up of hybrid nodes: %w", err)
	}
	return nil
}

func nodesOf(mgr manager.Manager) func(context.Context) ([]*corev1.Node, error) {
	return func(ctx context.Context) ([]*corev1.Node, error) {
		list := &corev1.NodeList{}
		if err := mgr.GetClient().List(ctx, list); err != nil {
			return nil, err
		}
		nodes := make([]*corev1.Node, len(list.Items))
		for i := range list.Items {
			nodes[i] = &list.Items[i]
		}
		return nodes, nil
	}
}

func (r *runner) nodeChanged(before, now any) {
	was, ok := before.(*corev1.Node)
	is, ok2 := now.(*corev1.Node)
	if ok && ok2 && !maps.Equal(was.Labels, is.Labels) {
		r.keeper.NodesChanged()
	}
}

// NeedLeaderElection tells the manager that only a leader does this.
func (r *runner) NeedLeaderElection() bool { return true }

// Start follows the configuration until ctx is done.
func (r *runner) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.wg.Wait()
	defer cancel()
	r.wg.Go(func() {
		follow(ctx, r.ConfigFile, func(content []byte, err error) { r.configure(ctx, content, err) })
	})
	select {
	case err := <-r.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// configure takes a configuration over, if it is right.
func (r *runner) configure(ctx context.Context, content []byte, err error) {
	log := klog.FromContext(ctx)
	var config *v1alpha1.HybridConfig
	if err == nil {
		config, err = v1alpha1.DecodeHybridConfig(content)
	}
	if err == nil {
		err = r.copier.Configure(config.PullSecret)
	}
	if err != nil {
		r.valid.Set(0)
		log.Error(err, "The configuration of hybrid nodes cannot be used; the last good one counts", "file", r.ConfigFile)
		r.Events.Eventf(r.Self, corev1.EventTypeWarning, EventConfig, "%s: %v; the last good configuration counts", r.ConfigFile, err)
		return
	}
	r.valid.Set(1)
	log.Info("Configured the set-up of hybrid nodes", "file", r.ConfigFile, "cniAffinity", config.CNIAffinity != nil, "pullSecret", config.PullSecret != nil)
	r.keeper.Configure(config.CNIAffinity)
	// What was never switched on watches nothing, and needs no permission.
	r.begin(ctx, &r.running.keeper, config.CNIAffinity != nil, r.keeper.Run)
	r.begin(ctx, &r.running.copier, config.PullSecret != nil, r.copier.Run)
}

func (r *runner) begin(ctx context.Context, running *bool, wanted bool, run func(context.Context) error) {
	if *running || !wanted {
		return
	}
	*running = true
	r.wg.Go(func() {
		if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			r.failed <- err
		}
	})
}
