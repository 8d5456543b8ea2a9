package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
)

func newCommand() *cobra.Command {
	o := defaultOptions()
	return program.Root(o.command(&cobra.Command{
		Use:   "kubelet-plugin",
		Short: "DRA driver for the GPUs of DGX machines that are EKS hybrid nodes",
	}, func(ctx context.Context) error { return run(ctx, o) }), newRemoveCommand())
}

// command has a command work with the plugin's flags, and others.
func (o *options) command(command *cobra.Command, work func(context.Context) error, addFlags ...func(*pflag.FlagSet)) *cobra.Command {
	return program.Command(command, program.Work{
		Flags:    append(addFlags, o.addFlags),
		Validate: o.validate,
		Run: func(ctx context.Context) error {
			return work(klog.NewContext(ctx, klog.FromContext(ctx).WithValues("node", o.nodeName, "driver", o.driverName)))
		},
	})
}
