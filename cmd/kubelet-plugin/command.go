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
		Use:   "kubelet-plugin",
		Short: "DRA driver for the GPUs of DGX machines that are EKS hybrid nodes",
		// Adds --version.
		Version: version.Get().GitVersion,
	}, o, func(ctx context.Context) error { return run(ctx, o) })
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(newRemoveCommand())
	return command
}

// subcommand adds to a command what all have: the plugin's flags, those of
// logging, and the end by a signal.
func subcommand(command *cobra.Command, o *options, work func(context.Context) error, addFlags ...func(*pflag.FlagSet)) *cobra.Command {
	logging := logsapi.NewLoggingConfiguration()
	command.Args = cobra.NoArgs
	// Errors of a running plugin are no errors of usage.
	command.SilenceUsage = true
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		// No feature gates: contextual logging is on by default.
		if err := o.validate(); err != nil {
			return err
		}
		if err := logsapi.ValidateAndApply(logging, nil); err != nil {
			return fmt.Errorf("set up logging: %w", err)
		}
		// An update ends the old plugin while the new one serves. It has to
		// take its sockets along, or kubelet goes on calling them.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return work(klog.NewContext(ctx, klog.Background().WithValues("node", o.nodeName, "driver", o.driverName)))
	}
	var sections cliflag.NamedFlagSets
	for _, add := range append(addFlags, o.addFlags) {
		add(sections.FlagSet("plugin"))
	}
	logsapi.AddFlags(logging, sections.FlagSet("logging"))
	for _, name := range sections.Order {
		command.Flags().AddFlagSet(sections.FlagSets[name])
	}
	return command
}
