package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/podprocs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
)

// checkKinds refuses kinds of devices that are to be served as extended resources
// and are switched off by a flag. Where pods or claims still have some of them it
// only says so: these need the plugin to their end.
func (o *options) checkKinds(ctx context.Context, kinds []string, families []driver.Family) error {
	flags := map[string]struct {
		name    string
		enabled bool
	}{
		string(device.KindGPU): {"--enable-gpu", o.enableGPU},
		string(device.KindVF):  {"--enable-sriov", o.enableSRIOV},
	}
	for _, kind := range kinds {
		flag := flags[kind]
		if flag.enabled {
			continue
		}
		err := fmt.Errorf("--config %s: devicePlugin.kinds has %q, which %s=false switches off: set the flag to true, or take the kind out", o.config, kind, flag.name)
		if !slices.ContainsFunc(families, func(f driver.Family) bool { return f.Name() == kind }) {
			return err
		}
		klog.FromContext(ctx).Error(err, "Nobody gets more of these devices: those that pods have stay theirs")
	}
	return nil
}

// resources returns what serves devices of the kinds as extended resources. Without
// kinds it waits for those that pods have.
func (o *options) resources(ctx context.Context, n node, config v1alpha1.DevicePluginConfig, kinds []device.Kind, families []driver.Family, registry prometheus.Registerer) (*deviceplugin.Plugin, error) {
	options, err := o.resourceOptions(n, config, kinds, families, registry)
	if err != nil {
		return nil, err
	}
	return deviceplugin.New(ctx, options)
}

func (o *options) resourceOptions(n node, config v1alpha1.DevicePluginConfig, kinds []device.Kind, families []driver.Family, registry prometheus.Registerer) (deviceplugin.Options, error) {
	settle, err := config.SettleTime()
	if err != nil {
		return deviceplugin.Options{}, fmt.Errorf("--config %s: devicePlugin.settle: %w", o.config, err)
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
		Kubelet:   kubelet.New(o.hostRoot, o.kubeletRoot, types.UID(o.podUID)),
		Processes: podprocs.New(o.procfs()),
		Kinds:     kinds,
		EnvVar:    config.Mode == v1alpha1.DevicePluginModeEnvVar,
		Registry:  registry,
		Settle:    settle,
	}
	for _, f := range families {
		options.Families = append(options.Families, f)
	}
	return options, o.configureResources(&options, config)
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
