package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/apiclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/podprocs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hostbin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/monitoring"
)

// cdiHook is the name of NVIDIA's hook program, which lies beside this one in
// the image.
const cdiHook = "nvidia-cdi-hook"

func run(ctx context.Context, o *options) error {
	registry, err := monitoring.NewRegistry()
	if err != nil {
		return err
	}
	a, err := o.agent(ctx, registry, false)
	if err != nil {
		return err
	}
	return monitoring.Beside(ctx, o.httpAddress, monitoring.Handler(registry, a.Healthy, a.Ready), a.Run)
}

// agent returns what serves this node. Removing says that it is to be taken off
// the node.
func (o *options) agent(ctx context.Context, registry *prometheus.Registry, removing bool) (*agent, error) {
	klog.FromContext(ctx).Info("Starting", "version", version.Get().GitVersion, "simulate", o.simulate, "removing", removing)
	n, err := o.node()
	if err != nil {
		return nil, err
	}
	families, err := o.families(ctx, n)
	if err != nil {
		return nil, err
	}
	config, err := o.nodeConfig()
	if err != nil {
		return nil, err
	}
	joined, err := o.pairs(config)
	if err != nil {
		return nil, err
	}
	metrics, err := driver.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	labels, err := o.nodeLabels(n, config, registry)
	if err != nil {
		return nil, err
	}
	var (
		selector *nodeSelector
		kinds    []device.Kind
	)
	if !removing {
		if err = o.checkKinds(ctx, config.DevicePlugin.Kinds, families); err != nil {
			return nil, err
		}
		selector = newNodeSelector(ctx, n.client, o.nodeName, o.dataDir(), config.DevicePlugin)
		kinds = selector.serves
	}
	resources, err := o.resources(ctx, n, config.DevicePlugin, kinds, families, registry)
	if err != nil {
		return nil, err
	}
	d, err := driver.New(ctx, driver.Options{
		DriverName:   o.driverName,
		NodeName:     o.nodeName,
		PodUID:       types.UID(o.podUID),
		DataDir:      o.dataDir(),
		RegistrarDir: o.registrarDir(),
		CDIDir:       o.cdiRoot,
		BootID:       n.bootID,
		KubeClient:   n.client,
		Processes:    podprocs.New(o.procfs()),
		Families:     families,
		Pairs:        joined,
		Managed:      config.Managed,
		Reserve:      resources,
		SetIBHCA:     config.NCCL.SetIBHCA,
		Metrics:      metrics,
		NodeLabels:   labels,
		AttachHook:   o.attachHookPath(),
		AttachWait:   o.attachWait,
		Removing:     removing,
	})
	if err != nil {
		return nil, err
	}
	return &agent{Driver: d, resources: resources, selector: selector}, nil
}

// node is the node that the plugin serves, and its cluster.
type node struct {
	bootID string
	config *rest.Config
	client kubernetes.Interface
}

func (o *options) node() (node, error) {
	bootID, err := os.ReadFile(o.bootIDPath())
	if err != nil {
		return node{}, fmt.Errorf("read the boot id: %w: see that --host-root is where the host's / is mounted", err)
	}
	n := node{bootID: strings.TrimSpace(string(bootID))}
	if n.config, err = apiclient.Config(o.kubeconfig, o.driverName+"-kubelet-plugin"); err != nil {
		return node{}, err
	}
	if n.client, err = kubernetes.NewForConfig(n.config); err != nil {
		return node{}, fmt.Errorf("connect to the API server: %w", err)
	}
	return n, nil
}

func installBeside(target string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's folder: %w", err)
	}
	source := filepath.Join(filepath.Dir(self), filepath.Base(target))
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("%w: the program must lie beside %s, as in the image that make image builds", err, filepath.Base(self))
	}
	return hostbin.Install(source, target)
}
