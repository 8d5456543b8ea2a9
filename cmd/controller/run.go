package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/monitoring"
)

// stopTimeout bounds what a controller does after it was told to stop: less than
// the time after which its pod is killed.
const stopTimeout = 25 * time.Second

// name is that of the lease, and of who reports events.
const name = "eks-hybrid-dra-controller"

func run(ctx context.Context, o *options) error {
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "version", version.Get().GitVersion, "namespace", o.namespace)
	ctrl.SetLogger(logger)
	config, err := apiclient.Config(o.kubeconfig, name)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	certificates := o.certificates(client)
	mgr, err := o.manager(ctx, config, certificates)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	defer broadcaster.Shutdown()
	registry := prometheus.NewRegistry()
	events := broadcaster.NewRecorder(clientgoscheme.Scheme, corev1.EventSource{Component: name})
	if o.enableClaims {
		if err := claimsServed(ctx, client); err != nil {
			return err
		}
		if err := o.allocation(ctx, mgr, client, registry, events); err != nil {
			return err
		}
	}
	if err := o.hybrid(ctx, mgr, config, client, registry, events); err != nil {
		return err
	}
	if err := o.admission(mgr, certificates, registry); err != nil {
		return err
	}
	metrics := prometheus.Gatherers{registry, ctrlmetrics.Registry}
	return o.serve(ctx, mgr, monitoring.Handler(metrics, alive, readiness(mgr, certificates)))
}

func (o *options) manager(ctx context.Context, config *rest.Config, certificates *webhookCertificates) (manager.Manager, error) {
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:           clientgoscheme.Scheme,
		Cache:            allocation.CacheOptions(),
		Logger:           klog.FromContext(ctx),
		LeaderElection:   o.leaderElect,
		LeaderElectionID: name, LeaderElectionNamespace: o.namespace,
		// The process ends right after the manager has stopped.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.leaseDuration, RenewDeadline: &o.renewDeadline, RetryPeriod: &o.retryPeriod,
		// Both are served by this program, as the kubelet plugin does it.
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		WebhookServer:          o.webhookServer(certificates),
		BaseContext:            func() context.Context { return ctx },
	})
	if err != nil {
		return nil, fmt.Errorf("set up the controller: %w", err)
	}
	return mgr, nil
}

// serve runs the manager and the HTTP endpoints, which stay while the manager
// stops.
func (o *options) serve(ctx context.Context, mgr manager.Manager, endpoints http.Handler) error {
	return monitoring.Beside(context.WithoutCancel(ctx), o.httpAddress, endpoints, func(served context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(served, cancel)()
		return start(ctx, mgr)
	})
}

// start runs the manager until it has stopped, or does not although it should: one
// that is stopped before it knows the cluster never ends by itself.
func start(ctx context.Context, mgr manager.Manager) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	synced, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if !mgr.GetCache().WaitForCacheSync(synced) {
		return nil // it has written nothing
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("the controller did not stop within %s", stopTimeout)
	}
}

// alive is always true: a controller that cannot go on ends.
func alive(context.Context) error { return nil }

// readiness is whether this replica knows the cluster, and can answer the
// webhook.
func readiness(mgr manager.Manager, certificates *webhookCertificates) monitoring.Check {
	return func(ctx context.Context) error {
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("what the cluster has is not known yet")
		}
		return certificates.ready()
	}
}
