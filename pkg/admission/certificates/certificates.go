package certificates

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// defaultLifetime is how long a certificate is valid. It is renewed after two
// thirds of that.
const defaultLifetime = 365 * 24 * time.Hour

// Options name the objects. All but Lifetime are needed.
type Options struct {
	// Namespace is that of the Secret and the Service.
	Namespace string
	// Secret must be there; it may be empty.
	Secret string
	// Service is the one by which the API server calls the webhook.
	Service string
	// Webhook is the ValidatingWebhookConfiguration.
	Webhook string
	// Lifetime is how long a new certificate is valid; a year if it is 0.
	Lifetime time.Duration
}

// Certificates keeps the webhook's certificate. [Certificates.Serving] and
// [Certificates.Keeping] are its two runnables for a controller manager.
type Certificates struct {
	client  kubernetes.Interface
	options Options
	names   []string

	secrets  cache.SharedIndexInformer
	webhooks cache.SharedIndexInformer

	served atomic.Pointer[tls.Certificate]
}

// New returns certificates that nobody keeps yet.
func New(client kubernetes.Interface, options Options) *Certificates {
	if options.Lifetime == 0 {
		options.Lifetime = defaultLifetime
	}
	service := options.Service + "." + options.Namespace + ".svc"
	c := &Certificates{
		client: client, options: options,
		names: []string{service, service + ".cluster.local", options.Service + "." + options.Namespace},
	}
	// Only the one object is asked for, so that permission for it is enough.
	one := func(o *metav1.ListOptions, name string) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
	secrets, webhooks := client.CoreV1().Secrets(options.Namespace), client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	c.secrets = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			one(&o, options.Secret)
			return secrets.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			one(&o, options.Secret)
			return secrets.Watch(ctx, o)
		},
	}, client), &corev1.Secret{}, 0, nil)
	c.webhooks = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			one(&o, options.Webhook)
			return webhooks.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			one(&o, options.Webhook)
			return webhooks.Watch(ctx, o)
		},
	}, client), &admissionv1.ValidatingWebhookConfiguration{}, 0, nil)
	return c
}

// Configure makes a server serve the certificate.
func (c *Certificates) Configure(config *tls.Config) {
	config.MinVersion = tls.VersionTLS12
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if served := c.served.Load(); served != nil {
			return served, nil
		}
		return nil, c.Ready()
	}
}

// Ready returns nil once there is a certificate to serve.
func (c *Certificates) Ready() error {
	if c.served.Load() != nil {
		return nil
	}
	return fmt.Errorf("no certificate for the webhook yet in Secret %s/%s", c.options.Namespace, c.options.Secret)
}

// runnable is a runnable of a controller manager.
type runnable struct {
	start func(context.Context) error
}

// Start runs until ctx is done.
func (r runnable) Start(ctx context.Context) error { return r.start(ctx) }

// NeedLeaderElection tells that every replica runs it.
func (r runnable) NeedLeaderElection() bool { return false }

// Runnable is what a controller manager runs.
type Runnable interface {
	Start(ctx context.Context) error
	NeedLeaderElection() bool
}

// Serving follows the Secret. Every replica runs it.
func (c *Certificates) Serving() Runnable { return runnable{start: c.serve} }

// Keeping makes and renews the certificate. Every replica runs it, and whoever is
// first counts: a leader from before the webhook was switched on makes none, and
// ends only when the others are ready, which takes a certificate.
func (c *Certificates) Keeping() Runnable { return runnable{start: c.keep} }

func (c *Certificates) serve(ctx context.Context) error {
	registration, err := c.secrets.AddEventHandlerWithOptions(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.follow(ctx, o) },
		UpdateFunc: func(_, o any) { c.follow(ctx, o) },
	}, cache.HandlerOptions{})
	if err != nil {
		return fmt.Errorf("follow the webhook's Secret: %w", err)
	}
	c.secrets.RunWithContext(ctx)
	return errors.Join(c.secrets.RemoveEventHandler(registration))
}

// follow serves what the Secret holds. One without a certificate changes
// nothing: what was served is still good.
func (c *Certificates) follow(ctx context.Context, object any) {
	secret, ok := object.(*corev1.Secret)
	if !ok || len(secret.Data[keyCert]) == 0 {
		return
	}
	p, err := readPair(secret.Data[keyCert], secret.Data[keyKey])
	if err != nil {
		klog.FromContext(ctx).Error(err, "The webhook's Secret holds no certificate that can be served", "secret", klog.KObj(secret))
		return
	}
	c.served.Store(&p.serving)
	klog.FromContext(ctx).Info("Serving the webhook with a certificate", "secret", klog.KObj(secret), "expires", p.leaf.NotAfter)
}
