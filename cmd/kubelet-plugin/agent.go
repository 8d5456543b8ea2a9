package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/podprocs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
)

// agent serves a node: its claims, and its extended resources.
type agent struct {
	*driver.Driver
	resources *deviceplugin.Plugin
	// selector is nil for a driver that is being removed.
	selector *nodeSelector
}

// Run runs both; when one ends, so does the other.
func (a *agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg             sync.WaitGroup
		err, labelsErr error
	)
	if a.selector != nil {
		wg.Go(func() {
			defer cancel()
			labelsErr = a.selector.follow(ctx)
		})
	}
	wg.Go(func() {
		defer cancel()
		if err = a.resources.Run(ctx, a.Offered); err != nil {
			err = fmt.Errorf("device plugin: %w", err)
		}
	})
	driverErr := a.Driver.Run(ctx)
	cancel()
	wg.Wait()
	return errors.Join(driverErr, err, labelsErr)
}

// Ready returns nil once both serve kubelet.
func (a *agent) Ready(ctx context.Context) error {
	return errors.Join(a.Driver.Ready(ctx), a.resources.Ready(ctx))
}

// resources returns what serves devices of the kinds as extended resources. Without
// kinds it waits for those that pods have.
func (o *options) resources(ctx context.Context, n node, config v1alpha1.DevicePluginConfig, kinds []device.Kind, families []driver.Family, registry prometheus.Registerer) (*deviceplugin.Plugin, error) {
	settle, err := config.SettleTime()
	if err != nil {
		return nil, fmt.Errorf("--config %s: devicePlugin.settle: %w", o.config, err)
	}
	options := deviceplugin.Options{
		DriverName:    o.driverName,
		PodUID:        types.UID(o.podUID),
		DataDir:       o.dataDir(),
		Dir:           filepath.Join(o.kubeletRoot, "device-plugins"),
		CDIDir:        o.cdiRoot,
		DeviceInfoDir: "/var/run/k8s.cni.cncf.io/devinfo/dp",
		BootID:        n.bootID,
		// By the host's root, so that they are found where kubelet's folder is
		// not mounted because no resource is configured (any more).
		Kubelet:   kubelet.New(o.hostRoot, o.kubeletRoot),
		Processes: podprocs.New(o.procfs()),
		Kinds:     kinds,
		EnvVar:    config.Mode == v1alpha1.DevicePluginModeEnvVar,
		Registry:  registry,
		Settle:    settle,
	}
	for _, f := range families {
		options.Families = append(options.Families, f)
	}
	if err := o.configureResources(&options, config); err != nil {
		return nil, err
	}
	return deviceplugin.New(ctx, options)
}

// configureResources says what is served as which resource.
func (o *options) configureResources(options *deviceplugin.Options, config v1alpha1.DevicePluginConfig) error {
	gpus := deviceplugin.Resource{Name: config.GPUResource, Kind: device.KindGPU}
	if options.EnvVar {
		gpus.Variable = "NVIDIA_VISIBLE_DEVICES"
	}
	options.Resources = append(options.Resources, gpus)
	for i, vfs := range config.VFResources {
		selects, err := sriov.Selector(vfs.Selectors)
		if err != nil {
			return fmt.Errorf("--config %s: devicePlugin.vfResources[%d]: %w", o.config, i, err)
		}
		options.Resources = append(options.Resources, deviceplugin.Resource{
			Name: vfs.Name, Kind: device.KindVF, Selects: selects, Grant: sriov.ResourceGrant,
			Variable: resourceVariable(vfs.Name), Network: true, InUse: []string{sriov.ReasonInterfaceMissing},
		})
	}
	return nil
}

// resourceVariable is the environment variable in which programs expect the PCI
// addresses of a resource, as the SR-IOV network device plugin has made it known.
func resourceVariable(resource string) string {
	return "PCIDEVICE_" + strings.ToUpper(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, resource))
}
