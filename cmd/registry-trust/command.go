package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
)

func newCommand() *cobra.Command {
	o := defaultOptions()
	type flags = []func(*pflag.FlagSet)
	return program.Root(program.Command(&cobra.Command{
		Use:   "registry-trust",
		Short: "Have this node's containerd trust private registries",
		Long: `Writes what containerd needs to trust registries whose certificates were issued
by a private authority, keeps it in step with a mounted ConfigMap or Secret, and
checks it against the registries. What it has written stays when it ends, so that
an update leaves no moment without trust; "registry-trust remove" removes it.`,
	}, program.Work{
		Flags:    flags{o.addNodeFlags, o.addRunFlags},
		Validate: o.validateRun,
		Run:      func(ctx context.Context) error { return run(ctx, o) },
	}), program.Command(&cobra.Command{
		Use:   "remove",
		Short: "Remove everything that registry-trust has written on this node",
	}, program.Work{
		Flags:    flags{o.addNodeFlags, o.addRemoveFlags},
		Validate: o.validate,
		Run:      func(ctx context.Context) error { return remove(ctx, o) },
	}), program.Command(&cobra.Command{
		Use:   "uninstall",
		Short: "Have all nodes of the DaemonSet remove everything, and wait for it",
		Long: `Runs in the cluster, before the DaemonSet is deleted: changes it so that its pods
run "registry-trust remove", and returns when they all have. It fails, and names
them, if some nodes have not in time.`,
	}, program.Work{
		Flags:    flags{o.addClusterFlags, o.addUninstallFlags},
		Validate: o.validateUninstall,
		Run:      func(ctx context.Context) error { return uninstallAll(ctx, o) },
	}))
}
