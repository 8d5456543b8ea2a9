package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
)

func newCommand() *cobra.Command {
	o := defaultOptions()
	command := subcommand(&cobra.Command{
		Use:   "controller",
		Short: "Allocates the claims of managed device classes, best fit and in gangs",
		// Adds --version.
		Version: version.Get().GitVersion,
	}, o.validate, func(ctx context.Context) error {
		return run(klog.NewContext(ctx, klog.FromContext(ctx).WithValues("driver", o.driverName)), o)
	}, o.addFlags)
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(newUninstallCommand())
	return command
}

// subcommand adds to a command what all have: flags, those of logging among
// them, and the end by a signal.
func subcommand(command *cobra.Command, validate func() error, work func(context.Context) error, addFlags func(*pflag.FlagSet)) *cobra.Command {
	logging := logsapi.NewLoggingConfiguration()
	command.Args = cobra.NoArgs
	// Errors of a running controller are no errors of usage.
	command.SilenceUsage = true
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := validate(); err != nil {
			return err
		}
		if err := logsapi.ValidateAndApply(logging, nil); err != nil {
			return fmt.Errorf("set up logging: %w", err)
		}
		// A leader that is told to stop finishes its writes and lets go of
		// the lease, so that the next one need not wait for its end.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return work(klog.NewContext(ctx, klog.Background()))
	}
	var sections cliflag.NamedFlagSets
	addFlags(sections.FlagSet(command.Name()))
	logsapi.AddFlags(logging, sections.FlagSet("logging"))
	for _, name := range sections.Order {
		command.Flags().AddFlagSet(sections.FlagSets[name])
	}
	return command
}
