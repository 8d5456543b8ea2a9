package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
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
	registry := prometheus.NewRegistry()
	a, err := o.agent(ctx, registry, false)
	if err != nil {
		return err
	}
	return serve(ctx, o.httpAddress, registry, a)
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
	metrics, err := newMetrics(registry)
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
		if selector, err = newNodeSelector(ctx, n.client, o.nodeName, o.dataDir(), config.DevicePlugin); err != nil {
			return nil, err
		}
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

// serve runs the agent and its HTTP endpoints; when one ends, so does the
// other.
func serve(ctx context.Context, address string, registry *prometheus.Registry, a *agent) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg      sync.WaitGroup
		httpErr error
	)
	if address != "" {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("--http-address %q: %w", address, err)
		}
		wg.Go(func() {
			defer cancel()
			httpErr = monitoring.Serve(ctx, listener, monitoring.Handler(registry, a.Healthy, a.Ready))
		})
	}
	err := a.Run(ctx)
	cancel()
	wg.Wait()
	return errors.Join(err, httpErr)
}

func newMetrics(registry *prometheus.Registry) (*driver.Metrics, error) {
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return driver.NewMetrics(registry)
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
	if n.config, err = o.clientConfig(); err != nil {
		return node{}, err
	}
	if n.client, err = kubernetes.NewForConfig(n.config); err != nil {
		return node{}, fmt.Errorf("connect to the API server: %w", err)
	}
	return n, nil
}

// clientConfig does not limit the client: a node's own work is little, and the
// API server protects itself better than a client can.
func (o *options) clientConfig() (*rest.Config, error) {
	config, err := apiclient.Config(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return rest.AddUserAgent(config, o.driverName+"-kubelet-plugin"), nil
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
