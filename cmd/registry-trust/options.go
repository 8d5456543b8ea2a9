package main

import (
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
)

// shortest is the shortest pause between two rounds.
const shortest = time.Second

type options struct {
	certsDir    string
	httpAddress string

	configDir        string
	containerdConfig string
	interval, retry  time.Duration
	nodeName         string
	kubeconfig       string

	stay bool

	namespace, daemonSet, container string
	timeout                         time.Duration
}

func defaultOptions() *options {
	return &options{
		certsDir:         "/etc/containerd/certs.d",
		httpAddress:      ":9466",
		configDir:        "/etc/registry-trust",
		containerdConfig: "/etc/containerd/config.toml",
		interval:         10 * time.Minute,
		retry:            30 * time.Second,
		nodeName:         os.Getenv("NODE_NAME"),
		namespace:        "eks-hybrid-dra",
		daemonSet:        "eks-hybrid-dra-registry-trust",
		container:        "registry-trust",
		timeout:          5 * time.Minute,
	}
}

// addNodeFlags are for the commands that run on a node.
func (o *options) addNodeFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.certsDir, "certs-dir", o.certsDir, "containerd's folder with the settings of registries, the same path on the host and here")
	flags.StringVar(&o.httpAddress, "http-address", o.httpAddress, "address that serves /metrics, /healthz and /readyz; empty: none")
}

func (o *options) addRunFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.configDir, "config-dir", o.configDir, "folder in which the ConfigMap or Secret with registries.yaml and the certificates is mounted")
	flags.StringVar(&o.containerdConfig, "containerd-config", o.containerdConfig, "containerd's configuration, the same path on the host and here; only read, to see whether containerd looks into --certs-dir; empty: not looked at")
	flags.DurationVar(&o.interval, "interval", o.interval, "how long after one check of everything the next one begins; changes of the configuration are seen at once")
	flags.DurationVar(&o.retry, "retry", o.retry, "the same as --interval while there is a problem")
	flags.StringVar(&o.nodeName, "node-name", o.nodeName, "name of this node in the cluster (default: $NODE_NAME)")
	o.addClusterFlags(flags)
}

// addClusterFlags are for the commands that talk to the API server.
func (o *options) addClusterFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig file; empty: the pod's service account")
}

func (o *options) addRemoveFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.stay, "stay", o.stay, "stay, and be ready, after everything is removed, so that a DaemonSet that runs this shows when all nodes are done")
}

func (o *options) addUninstallFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.namespace, "namespace", o.namespace, "namespace of the DaemonSet")
	flags.StringVar(&o.daemonSet, "daemonset", o.daemonSet, "DaemonSet that runs registry-trust on the nodes")
	flags.StringVar(&o.container, "container", o.container, "container of its pods that does")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "how long to wait for all nodes")
}

// validate names every flag with a wrong value.
func (o *options) validate() error {
	var c program.Checks
	o.checkNode(&c)
	return c.Err()
}

func (o *options) checkNode(c *program.Checks) {
	c.Absolute("certs-dir", o.certsDir)
	c.Absolute("config-dir", o.configDir)
	c.AbsoluteIfGiven("containerd-config", o.containerdConfig)
	c.Want(o.interval >= shortest, "interval", o.interval, "at least "+shortest.String())
	c.Want(o.retry >= shortest, "retry", o.retry, "at least "+shortest.String())
}

func (o *options) validateRun() error {
	var c program.Checks
	o.checkNode(&c)
	c.Given("node-name", o.nodeName, "set it, or NODE_NAME, to the name of this node in the cluster")
	return c.Err()
}

func (o *options) validateUninstall() error {
	var c program.Checks
	c.Given("namespace", o.namespace, "")
	c.Given("daemonset", o.daemonSet, "")
	c.Given("container", o.container, "")
	c.Want(o.timeout >= shortest, "timeout", o.timeout, "at least "+shortest.String())
	return c.Err()
}
