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
	return program.Root(program.Command(&cobra.Command{
		Use:   "controller",
		Short: "Allocates the claims of managed device classes, best fit and in gangs",
	}, program.Work{
		Flags:    []func(*pflag.FlagSet){o.addFlags},
		Validate: o.validate,
		Run: func(ctx context.Context) error {
			return run(klog.NewContext(ctx, klog.FromContext(ctx).WithValues("driver", o.driverName)), o)
		},
	}), newUninstallCommand())
}
