package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/monitoring"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/uninstall"
)

func run(ctx context.Context, o *options) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("node", o.nodeName))
	klog.FromContext(ctx).Info("Starting", "version", version.Get().GitVersion)
	client, err := o.client()
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	registry, err := monitoring.NewRegistry()
	if err != nil {
		return err
	}
	metrics, err := registrytrust.NewMetrics(registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	agent := registrytrust.New(registrytrust.Options{
		ConfigDir:        o.configDir,
		CertsDir:         o.certsDir,
		ContainerdConfig: o.containerdConfig,
		Interval:         o.interval,
		Retry:            o.retry,
		NodeName:         o.nodeName,
		Events:           broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "registry-trust", Host: o.nodeName}),
		Metrics:          metrics,
	})
	return o.serve(ctx, registry, agent.Healthy, agent.Ready, agent.Run)
}

// remove removes what was written, and then waits for its end if it is told to.
func remove(ctx context.Context, o *options) error {
	if err := registrytrust.Remove(ctx, o.certsDir); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Nothing is left of what registry-trust has written", "certsDir", o.certsDir)
	if !o.stay {
		return nil
	}
	registry, err := monitoring.NewRegistry()
	if err != nil {
		return err
	}
	fine := func(context.Context) error { return nil }
	return o.serve(ctx, registry, fine, fine, func(ctx context.Context) { <-ctx.Done() })
}

// uninstallAll removes what was written on all nodes.
func uninstallAll(ctx context.Context, o *options) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = uninstall.DaemonSet{
		Client:    client,
		Namespace: o.namespace,
		Name:      o.daemonSet,
		Container: o.container,
		Args:      []string{"remove", "--stay"},
		Poll:      time.Second,
	}.Run(ctx)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Nothing is left on any node of what registry-trust has written")
	return nil
}

// serve works with the HTTP endpoints beside it.
func (o *options) serve(ctx context.Context, registry *prometheus.Registry, healthy, ready monitoring.Check, work func(context.Context)) error {
	return monitoring.Beside(ctx, o.httpAddress, monitoring.Handler(registry, healthy, ready), func(ctx context.Context) error {
		work(ctx)
		return nil
	})
}

// client is for events, and for uninstall.
func (o *options) client() (kubernetes.Interface, error) {
	config, err := apiclient.Config(o.kubeconfig, "registry-trust")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return client, nil
}
