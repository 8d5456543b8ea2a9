package main

import (
	"context"
	"maps"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/program"
)

// programs returns the programs of the image, in the order of its layers:
// those that change least come first, so that a new image shares most of its
// layers with the one before.
func programs(ctx context.Context, module string) ([]program.Program, error) {
	const toolkit = "github.com/NVIDIA/nvidia-container-toolkit"
	hookVersion, err := program.ModuleVersion(ctx, module, toolkit)
	if err != nil {
		return nil, err
	}
	ours := program.VersionOf(ctx, module).Variables()
	hook := maps.Clone(ours)
	hook[toolkit+"/internal/info.version"] = hookVersion

	return []program.Program{
		// Installed on the host, whose C library may be older than ours.
		{Name: "nvidia-cdi-hook", Package: toolkit + "/cmd/nvidia-cdi-hook", Linkage: program.Static, Variables: hook},
		// Runs in containers with any C library, or none.
		{Name: "simulated-nvidia-smi", Package: "./internal/simulated/nvidia-smi", Linkage: program.Pure, Variables: ours},
		// Installed on the host. Without a version, so that it changes only when
		// its code does.
		{Name: "attach-hook", Package: "./cmd/attach-hook", Linkage: program.Pure},
		{Name: "registry-trust", Package: "./cmd/registry-trust", Linkage: program.Pure, Variables: ours},
		// Runs in its own pods, on any node.
		{Name: "controller", Package: "./cmd/controller", Linkage: program.Pure, Variables: ours},
		// Opens the driver's libnvidia-ml.so.1.
		{Name: "kubelet-plugin", Package: "./cmd/kubelet-plugin", Linkage: program.Dynamic, Variables: ours},
	}, nil
}
