package main

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/gpu"
)

// families returns the kinds of hardware to serve, GPUs first. One that is
// switched off is still there for the claims that have some of it.
func (o *options) families(ctx context.Context, n node) ([]driver.Family, error) {
	machine, err := o.simulatedMachine(ctx)
	if err != nil {
		return nil, err
	}
	inUse, err := driver.FamiliesInUse(ctx, o.dataDir())
	if err != nil {
		return nil, err
	}
	var families []driver.Family
	for _, kind := range []struct {
		name    device.Kind
		enabled bool
		open    func() (driver.Family, error)
	}{
		{device.KindGPU, o.enableGPU, func() (driver.Family, error) { return o.gpuFamily(machine) }},
		{device.KindVF, o.enableSRIOV, func() (driver.Family, error) { return o.sriovFamily(ctx, n, machine) }},
	} {
		used := slices.Contains(inUse, string(kind.name))
		if !kind.enabled && !used {
			continue
		}
		family, err := kind.open()
		if err != nil {
			return nil, err
		}
		if !kind.enabled {
			klog.FromContext(ctx).Info("A kind of device is switched off, and claims have some of it: no further claim gets any, these keep theirs to their end", "family", kind.name)
			family = driver.Retired(family)
		}
		families = append(families, family)
	}
	return families, nil
}

// gpuFamily returns the GPUs of this machine, or of the simulated one.
func (o *options) gpuFamily(machine *simulation) (*gpu.Family, error) {
	hook := filepath.Join(o.dataDir(), "bin", cdiHook)
	if err := installBeside(hook); err != nil {
		return nil, err
	}
	settings := gpu.Options{
		SysfsRoot:   o.servedSysfs(),
		HostRoot:    o.hostRoot,
		DriverRoot:  o.driverRoot,
		CDIHookPath: hook,
	}
	if machine != nil {
		settings.HostRoot, settings.DriverRoot = "/", machine.driverRoot
		settings.OpenNVML = func(string) nvml.Interface { return machine.NVML() }
	}
	return gpu.New(settings), nil
}
