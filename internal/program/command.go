package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
)

// Work is what a command does.
type Work struct {
	// Flags add the command's flags. Those of logging come with them.
	Flags []func(*pflag.FlagSet)
	// Validate names every flag with a wrong value, see [Checks].
	Validate func() error
	// Run works until it is done, or the program is told to end and so ctx is.
	Run func(ctx context.Context) error
}

// Command has a command do the work.
func Command(command *cobra.Command, w Work) *cobra.Command {
	logging := logsapi.NewLoggingConfiguration()
	command.Args = cobra.NoArgs
	// Errors of the work are no errors of usage.
	command.SilenceUsage = true
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := w.Validate(); err != nil {
			return err
		}
		// No feature gates: contextual logging is on by default.
		if err := logsapi.ValidateAndApply(logging, nil); err != nil {
			return fmt.Errorf("set up logging: %w", err)
		}
		// What is told to end takes along what others wait for: sockets that
		// kubelet would go on calling, a lease that the next leader wants.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return w.Run(klog.NewContext(ctx, klog.Background()))
	}
	for _, add := range w.Flags {
		add(command.Flags())
	}
	logsapi.AddFlags(logging, command.Flags())
	return command
}

// Root makes a command a whole program, with a --version.
func Root(command *cobra.Command, subcommands ...*cobra.Command) *cobra.Command {
	command.Version = version.Get().GitVersion
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(subcommands...)
	return command
}
