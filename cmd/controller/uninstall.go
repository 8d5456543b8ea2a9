package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/uninstall"
)

// uninstallOptions say what is installed, as the chart calls it.
type uninstallOptions struct {
	*options
	plugin, pluginContainer               string
	controller                            string
	registryTrust, registryTrustContainer string
	skipUnreachableNodes                  bool
	keepCommand                           string
	resources                             []string
	timeout                               time.Duration
}

func newUninstallCommand() *cobra.Command {
	o := &uninstallOptions{
		options: defaultOptions(),
		plugin:  "eks-hybrid-dra-kubelet-plugin", pluginContainer: "kubelet-plugin",
		controller:             "eks-hybrid-dra-controller",
		registryTrustContainer: "registry-trust",
		timeout:                4 * time.Minute,
	}
	command := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the driver out of the cluster, up to the objects that were installed",
		Long: `Runs in the cluster, before what was installed is deleted. It refuses, and names the
claims, while any has devices of the driver. Otherwise it has the plugin take
itself off every node, stops the controller, and undoes what that has done to
objects of others. If it fails, it has the driver serve as before. It can be
repeated.`,
	}
	return program.Command(command, program.Work{
		Flags:    []func(*pflag.FlagSet){o.addFlags},
		Validate: o.validate,
		Run:      func(ctx context.Context) error { return uninstallAll(ctx, o, command.OutOrStdout()) },
	})
}

func (o *uninstallOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.driverName, "driver-name", o.driverName, "name of the DRA driver, as the kubelet plugin has it")
	flags.StringVar(&o.namespace, "namespace", o.namespace, "namespace in which the driver is installed (default: $POD_NAMESPACE, or eks-hybrid-dra)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig file; empty: the pod's service account")
	flags.StringVar(&o.hybridConfig, "hybrid-config", o.hybridConfig, "configuration file of kind HybridConfig, as the controller has it; empty: none")
	flags.StringVar(&o.plugin, "plugin", o.plugin, "DaemonSet that runs the kubelet plugin")
	flags.StringVar(&o.pluginContainer, "plugin-container", o.pluginContainer, "container of its pods that does")
	flags.StringSliceVar(&o.resources, "resources", o.resources, "extended resources that the plugin serves without claims: it is refused while pods of its nodes have some")
	flags.StringVar(&o.controller, "controller", o.controller, "Deployment that runs the controller; empty: there is none")
	flags.StringVar(&o.registryTrust, "registry-trust", o.registryTrust, "DaemonSet that runs registry-trust; empty: there is none")
	flags.StringVar(&o.registryTrustContainer, "registry-trust-container", o.registryTrustContainer, "container of its pods that does")
	flags.BoolVar(&o.skipUnreachableNodes, "skip-unreachable-nodes", o.skipUnreachableNodes, "leave nodes that are not ready as they are, but for their ResourceSlices, instead of refusing")
	flags.StringVar(&o.keepCommand, "keep-command", o.keepCommand, "command that is named to a person whose uninstall failed, for going on with the driver")
	flags.DurationVar(&o.timeout, "timeout", o.timeout, "how long to try, before what was changed is put back")
}

// validate names every flag with a wrong value.
func (o *uninstallOptions) validate() error {
	var c program.Checks
	c.Check("driver-name", o.driverName, validation.IsDNS1123Subdomain(o.driverName)...)
	c.Check("namespace", o.namespace, validation.IsDNS1123Label(o.namespace)...)
	c.Check("plugin", o.plugin, validation.IsDNS1123Subdomain(o.plugin)...)
	c.Check("plugin-container", o.pluginContainer, validation.IsDNS1123Label(o.pluginContainer)...)
	c.Check("registry-trust-container", o.registryTrustContainer, validation.IsDNS1123Label(o.registryTrustContainer)...)
	if o.controller != "" {
		c.Check("controller", o.controller, validation.IsDNS1123Subdomain(o.controller)...)
	}
	if o.registryTrust != "" {
		c.Check("registry-trust", o.registryTrust, validation.IsDNS1123Subdomain(o.registryTrust)...)
	}
	c.Want(o.timeout >= time.Second, "timeout", o.timeout, "at least 1s")
	return c.Err()
}

// uninstallAll writes why it refuses to out, plainly: helm shows that to the
// person who uninstalls.
func uninstallAll(ctx context.Context, o *uninstallOptions, out io.Writer) error {
	config, err := apiclient.Config(o.kubeconfig, name)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("namespace", o.namespace))
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("gave up after %s", o.timeout))
	defer cancel()
	undo, err := o.undoHybrid(ctx, config, client)
	if err != nil {
		return err
	}
	lease, plans := name, gangplan.Label
	if o.controller == "" { // nothing to remove, and no permission for it
		lease, plans = "", ""
	}
	err = uninstall.Run(ctx, uninstall.Options{
		Client:          client,
		DriverName:      o.driverName,
		Namespace:       o.namespace,
		Plugin:          o.plugin,
		PluginContainer: o.pluginContainer,
		Resources:       o.resources,
		Controller:      o.controller,
		Lease:           lease,
		PlanLabel:       plans,
		RegistryTrust:   o.registryTrust, RegistryTrustContainer: o.registryTrustContainer,
		SkipUnreachableNodes: o.skipUnreachableNodes,
		Undo:                 undo,
	})
	if err == nil {
		return nil
	}
	fmt.Fprintln(out, err)
	if o.keepCommand != "" {
		fmt.Fprintln(out, "or go on with the driver:", o.keepCommand)
	}
	return errors.New("not uninstalled")
}

// undoHybrid returns what takes back what the controller has done for hybrid
// nodes.
func (o *uninstallOptions) undoHybrid(ctx context.Context, config *rest.Config, client kubernetes.Interface) ([]uninstall.Step, error) {
	if o.hybridConfig == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(o.hybridConfig)
	if errors.Is(err, fs.ErrNotExist) && o.controllerIsGone(ctx, client) {
		// It is deleted after all has been undone, by somebody who was broken off.
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--hybrid-config: %w", err)
	}
	decoded, err := v1alpha1.DecodeHybridConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("--hybrid-config %s: %w", o.hybridConfig, err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return []uninstall.Step{{
		Name: "give network plugins back their affinity, and remove copies of the pull secret",
		Do: func(ctx context.Context) error {
			undone, err := hybrid.Undo(ctx, client, objects, o.namespace, decoded)
			klog.FromContext(ctx).Info("Undone for hybrid nodes", "affinity", undone.Affinity, "secrets", undone.Secrets)
			return err
		},
	}}, nil
}

// controllerIsGone tells whether what did something for hybrid nodes was deleted.
func (o *uninstallOptions) controllerIsGone(ctx context.Context, client kubernetes.Interface) bool {
	if o.controller == "" {
		return false
	}
	_, err := client.AppsV1().Deployments(o.namespace).Get(ctx, o.controller, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}
