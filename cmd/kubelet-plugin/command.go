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
		Use:   "kubelet-plugin",
		Short: "DRA driver for the GPUs of DGX machines that are EKS hybrid nodes",
		Args:  cobra.NoArgs,
		// Adds --version.
		Version: version.Get().GitVersion,
		// Errors of a running plugin are no errors of usage.
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
			ctx = klog.NewContext(ctx, klog.Background().WithValues("node", o.nodeName, "driver", o.driverName))
			return run(ctx, o)
		},
	}
	var sections cliflag.NamedFlagSets
	o.addFlags(sections.FlagSet("plugin"))
	logsapi.AddFlags(logging, sections.FlagSet("logging"))
	for _, name := range sections.Order {
		command.Flags().AddFlagSet(sections.FlagSets[name])
	}
	return command
}
