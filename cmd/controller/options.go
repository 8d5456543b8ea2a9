package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
)

// webhookObjects is what the manifests call what belongs to the webhook.
const webhookObjects = "eks-hybrid-dra-webhook"

type options struct {
	driverName    string
	namespace     string
	kubeconfig    string
	httpAddress   string
	unusedAfter   time.Duration
	gangTimeout   time.Duration
	explainAfter  time.Duration
	topologyLabel string
	workers       int
	enableClaims  bool
	hybridConfig  string

	leaderElect   bool
	leaseDuration time.Duration
	renewDeadline time.Duration
	retryPeriod   time.Duration

	enableWebhook  bool
	webhookPort    int
	webhookSecret  string
	webhookService string
	webhookConfig  string
}

func defaultOptions() *options {
	return &options{
		driverName:     "eks-hybrid-dra",
		namespace:      cmp.Or(os.Getenv("POD_NAMESPACE"), "eks-hybrid-dra"),
		httpAddress:    ":9465",
		unusedAfter:    10 * time.Minute,
		gangTimeout:    5 * time.Minute,
		explainAfter:   10 * time.Second,
		workers:        16,
		enableClaims:   true,
		leaderElect:    true,
		leaseDuration:  15 * time.Second,
		renewDeadline:  10 * time.Second,
		retryPeriod:    2 * time.Second,
		enableWebhook:  true,
		webhookPort:    9443,
		webhookSecret:  webhookObjects,
		webhookService: webhookObjects,
		webhookConfig:  "eks-hybrid-dra",
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.driverName, "driver-name", o.driverName, "name of the DRA driver, as the kubelet plugin has it")
	flags.StringVar(&o.namespace, "namespace", o.namespace, "namespace of this controller, for its lease, its plans of gangs and its certificate (default: $POD_NAMESPACE, or eks-hybrid-dra)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig file; empty: the pod's service account")
	flags.StringVar(&o.httpAddress, "http-address", o.httpAddress, "address that serves /metrics, /healthz and /readyz; empty: none")
	flags.DurationVar(&o.unusedAfter, "unused-after", o.unusedAfter, "how long a claim may be allocated before a pod reserves it, and is then freed; the claim's label eks-hybrid-dra/unused-after comes first")
	flags.DurationVar(&o.gangTimeout, "gang-timeout", o.gangTimeout, "how long a gang of claims may wait before that is reported; the claims' label eks-hybrid-dra/gang-timeout comes first")
	flags.DurationVar(&o.explainAfter, "explain-after", o.explainAfter, "how long a claim waits before an event says why")
	flags.StringVar(&o.topologyLabel, "topology-label", o.topologyLabel, "label of nodes that says of which site or fabric they are: a gang gets nodes with one value of it; empty: any nodes")
	flags.IntVar(&o.workers, "workers", o.workers, "how many claims and gangs are written at the same time")
	flags.BoolVar(&o.enableClaims, "enable-claims", o.enableClaims, "allocate claims, and say why they wait; false is for clusters that have none, before Kubernetes 1.34, where only --hybrid-config is left to do")
	flags.StringVar(&o.hybridConfig, "hybrid-config", o.hybridConfig, "file with a HybridConfig, which is followed: on which nodes DaemonSets of network plugins are kept, and where pull secrets are copied to; empty: neither")
	flags.BoolVar(&o.leaderElect, "leader-elect", o.leaderElect, "allocate only while holding the lease; without it this must be the only controller")
	flags.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", o.leaseDuration, "after how long a leader that is not heard of is replaced")
	flags.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", o.renewDeadline, "how long a leader that cannot renew its lease goes on; less than the lease's duration")
	flags.DurationVar(&o.retryPeriod, "leader-elect-retry-period", o.retryPeriod, "how long to wait between tries to get or renew the lease; less than the deadline")
	flags.BoolVar(&o.enableWebhook, "enable-webhook", o.enableWebhook, "serve the validating webhook, and keep its certificate")
	flags.IntVar(&o.webhookPort, "webhook-port", o.webhookPort, "port of the validating webhook")
	flags.StringVar(&o.webhookSecret, "webhook-secret", o.webhookSecret, "Secret of this namespace with the webhook's certificate")
	flags.StringVar(&o.webhookService, "webhook-service", o.webhookService, "Service of this namespace by which the API server calls the webhook")
	flags.StringVar(&o.webhookConfig, "webhook-configuration", o.webhookConfig, "ValidatingWebhookConfiguration that gets the certificate's authority")
}

// validate names every flag with a wrong value.
func (o *options) validate() error {
	var c program.Checks
	c.Check("driver-name", o.driverName, validation.IsDNS1123Subdomain(o.driverName)...)
	c.Check("namespace", o.namespace, validation.IsDNS1123Label(o.namespace)...)
	if o.topologyLabel != "" {
		c.Check("topology-label", o.topologyLabel, validation.IsQualifiedName(o.topologyLabel)...)
	}
	c.Want(o.unusedAfter > 0, "unused-after", o.unusedAfter, "more than 0")
	c.Want(o.gangTimeout > 0, "gang-timeout", o.gangTimeout, "more than 0")
	c.Want(o.explainAfter > 0, "explain-after", o.explainAfter, "more than 0")
	c.Want(o.workers > 0, "workers", o.workers, "at least 1")
	if o.retryPeriod <= 0 || o.renewDeadline <= o.retryPeriod || o.leaseDuration <= o.renewDeadline {
		c.Add(fmt.Errorf("--leader-elect-lease-duration %s, --leader-elect-renew-deadline %s, --leader-elect-retry-period %s: want each shorter than the one before, and more than 0", o.leaseDuration, o.renewDeadline, o.retryPeriod))
	}
	if !o.enableClaims && o.hybridConfig == "" {
		c.Add(errors.New("--enable-claims is false and --hybrid-config is empty: nothing is left to do"))
	}
	o.checkWebhook(&c)
	return c.Err()
}

func (o *options) checkWebhook(c *program.Checks) {
	if !o.enableWebhook {
		return
	}
	if !o.enableClaims {
		c.Add(errors.New("--enable-claims is false, but --enable-webhook is true: the webhook checks claims; set both to false"))
	}
	c.Want(o.webhookPort >= 1 && o.webhookPort <= 65535, "webhook-port", o.webhookPort, "1 to 65535")
	c.Check("webhook-secret", o.webhookSecret, validation.IsDNS1123Subdomain(o.webhookSecret)...)
	c.Check("webhook-service", o.webhookService, validation.IsDNS1123Subdomain(o.webhookService)...)
	c.Check("webhook-configuration", o.webhookConfig, validation.IsDNS1123Subdomain(o.webhookConfig)...)
}
