package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/admission"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/admission/certificates"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/explain"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// claimsServed returns an error if the API server says that it has no claims, which
// would be waited for in vain. One that does not answer may have some.
func claimsServed(ctx context.Context, client kubernetes.Interface) error {
	version := resourceapi.SchemeGroupVersion.String()
	if _, err := client.Discovery().ServerResourcesForGroupVersionWithContext(ctx, version); !apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("the API server does not serve %s, as Kubernetes does since 1.34, so that there are no claims to allocate: "+
		"leave the controller out, or set --enable-claims=false and --enable-webhook=false if it has a --hybrid-config", version)
}

// allocation adds to the manager what allocates claims, measures that, and says
// why claims wait.
func (o *options) allocation(ctx context.Context, mgr manager.Manager, client kubernetes.Interface, registry *prometheus.Registry, events record.EventRecorder) error {
	known := fleet.New(o.driverName)
	metrics, err := measure.New(registry, measure.Options{Fleet: known})
	if err != nil {
		return err
	}
	users := consumers.NewIndex()
	explainer := explain.New(explain.Options{Fleet: known, Consumers: users.Of, Recorder: events, After: o.explainAfter})
	_, err = allocation.Setup(ctx, mgr, allocation.Options{
		Name:          name,
		DriverName:    o.driverName,
		Namespace:     o.namespace,
		Client:        client,
		Fleet:         known,
		Consumers:     users,
		Metrics:       metrics,
		Observer:      explainer,
		Events:        events,
		UnusedAfter:   o.unusedAfter,
		GangTimeout:   o.gangTimeout,
		TopologyLabel: o.topologyLabel,
		Workers:       o.workers,
	})
	if err != nil {
		return err
	}
	for _, runnable := range []manager.Runnable{metrics, explainer} {
		if err := mgr.Add(runnable); err != nil {
			return fmt.Errorf("add what watches over claims: %w", err)
		}
	}
	return nil
}

// webhookCertificates are nil where no webhook is served.
type webhookCertificates struct{ *certificates.Certificates }

func (w *webhookCertificates) ready() error {
	if w == nil {
		return nil
	}
	return w.Ready()
}

func (o *options) certificates(client kubernetes.Interface) *webhookCertificates {
	if !o.enableWebhook {
		return nil
	}
	return &webhookCertificates{certificates.New(client, certificates.Options{
		Namespace: o.namespace, Secret: o.webhookSecret, Service: o.webhookService, Webhook: o.webhookConfig,
	})}
}

// webhookServer is one that never starts where no webhook is served: a manager
// starts its server when somebody asks for it.
func (o *options) webhookServer(certificates *webhookCertificates) webhook.Server {
	options := webhook.Options{Port: o.webhookPort}
	if certificates != nil {
		options.TLSOpts = []func(*tls.Config){certificates.Configure}
	}
	return webhook.NewServer(options)
}

// admission adds the validating webhook to the manager.
func (o *options) admission(mgr manager.Manager, certificates *webhookCertificates, registry prometheus.Registerer) error {
	if certificates == nil {
		return nil
	}
	if err := certificates.Register(registry); err != nil {
		return err
	}
	validator, err := admission.New(o.driverName, mgr.GetClient())
	if err != nil {
		return fmt.Errorf("set up the validating webhook: %w", err)
	}
	validator.Register(mgr.GetWebhookServer())
	for _, runnable := range []manager.Runnable{certificates.Serving(), certificates.Keeping()} {
		if err := mgr.Add(runnable); err != nil {
			return fmt.Errorf("add the webhook's certificate: %w", err)
		}
	}
	return nil
}
