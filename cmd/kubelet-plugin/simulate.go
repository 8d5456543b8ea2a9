package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/gpu"
)

// simulateGPUs makes the simulated machine's files and points the family at
// them. They lie in the driver's data folder, which has the same path on the
// host, so that the container runtime finds the driver's files there.
func (o *options) simulateGPUs(ctx context.Context, settings *gpu.Options) error {
	model, err := simulated.ParseModel(o.simulate)
	if err != nil {
		return fmt.Errorf("--simulate: %w", err)
	}
	machine := simulated.New(model, o.nodeName)
	settings.SysfsRoot = filepath.Join(o.dataDir(), "simulated", "sys")
	settings.HostRoot = "/"
	settings.DriverRoot = filepath.Join(o.dataDir(), "simulated", "driver")
	settings.OpenNVML = func(string) nvml.Interface { return machine.NVML() }
	if err := machine.WriteSysfs(settings.SysfsRoot); err != nil {
		return fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	if err := machine.WriteDriverRoot(settings.DriverRoot); err != nil {
		return fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	klog.FromContext(ctx).Info("This machine's hardware is not looked at: serving a simulated one", "model", o.simulate)
	return nil
}
