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
		Use:   "registry-trust",
		Short: "Have this node's containerd trust private registries",
		Long: `Writes what containerd needs to trust registries whose certificates were issued
by a private authority, keeps it in step with a mounted ConfigMap or Secret, and
checks it against the registries. What it has written stays when it ends, so that
an update leaves no moment without trust; "registry-trust remove" removes it.`,
		// Adds --version.
		Version: version.Get().GitVersion,
	}, o.validateRun, func(ctx context.Context) error { return run(ctx, o) }, o.addNodeFlags, o.addRunFlags)
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(subcommand(&cobra.Command{
		Use:   "remove",
		Short: "Remove everything that registry-trust has written on this node",
	}, o.validate, func(ctx context.Context) error { return remove(ctx, o) }, o.addNodeFlags, o.addRemoveFlags))
	command.AddCommand(subcommand(&cobra.Command{
		Use:   "uninstall",
		Short: "Have all nodes of the DaemonSet remove everything, and wait for it",
		Long: `Runs in the cluster, before the DaemonSet is deleted: changes it so that its pods
run "registry-trust remove", and returns when they all have. It fails, and names
them, if some nodes have not in time.`,
	}, o.validateUninstall, func(ctx context.Context) error { return uninstallAll(ctx, o) }, o.addClusterFlags, o.addUninstallFlags))
	return command
}

// subcommand adds to a command what all have: flags, those of logging among
// them, and the end by a signal.
func subcommand(command *cobra.Command, validate func() error, work func(context.Context) error, addFlags ...func(*pflag.FlagSet)) *cobra.Command {
	logging := logsapi.NewLoggingConfiguration()
	command.Args = cobra.NoArgs
	// Errors of a running program are no errors of usage.
	command.SilenceUsage = true
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := validate(); err != nil {
			return err
		}
		if err := logsapi.ValidateAndApply(logging, nil); err != nil {
			return fmt.Errorf("set up logging: %w", err)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return work(klog.NewContext(ctx, klog.Background()))
	}
	var sections cliflag.NamedFlagSets
	for _, add := range addFlags {
		add(sections.FlagSet(command.Name()))
	}
	logsapi.AddFlags(logging, sections.FlagSet("logging"))
	for _, name := range sections.Order {
		command.Flags().AddFlagSet(sections.FlagSets[name])
	}
	return command
}
