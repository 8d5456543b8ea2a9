package main

import (
	"context"
	"path/filepath"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/gpu"
)

// families returns the kinds of hardware to serve, GPUs first.
func (o *options) families(ctx context.Context, n node) ([]driver.Family, error) {
	machine, err := o.simulatedMachine(ctx)
	if err != nil {
		return nil, err
	}
	var families []driver.Family
	if o.enableGPU {
		family, err := o.gpuFamily(machine)
		if err != nil {
			return nil, err
		}
		families = append(families, family)
	}
	if o.enableSRIOV {
		family, err := o.sriovFamily(ctx, n, machine)
		if err != nil {
			return nil, err
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
