package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
)

func newCommand() *cobra.Command {
	o := defaultOptions()
	logging := logsapi.NewLoggingConfiguration()
	command := &cobra.Command{
		Use:   "controller",
		Short: "Allocates the claims of managed device classes, best fit and in gangs",
		Args:  cobra.NoArgs,
		// Adds --version.
		Version: version.Get().GitVersion,
		// Errors of a running controller are no errors of usage.
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			if err := logsapi.ValidateAndApply(logging, nil); err != nil {
				return fmt.Errorf("set up logging: %w", err)
			}
			// A leader that is told to stop finishes its writes and lets go of
			// the lease, so that the next one need not wait for its end.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx = klog.NewContext(ctx, klog.Background().WithValues("driver", o.driverName))
			return run(ctx, o)
		},
	}
	var sections cliflag.NamedFlagSets
	o.addFlags(sections.FlagSet("controller"))
	logsapi.AddFlags(logging, sections.FlagSet("logging"))
	for _, name := range sections.Order {
		command.Flags().AddFlagSet(sections.FlagSets[name])
	}
	return command
}
