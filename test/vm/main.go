package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/machine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	err := command().ExecuteContext(ctx)
	stop()
	var exit *machine.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.Code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "vm",
		Short:         "A QEMU guest with real SR-IOV network cards, for tests",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	name := root.PersistentFlags().String("name", "guest", "name of the guest; several can run beside each other")
	root.AddCommand(build(), up(name), execute(name), down(name), console(name), test(name), testBinary(name))
	return root
}

func build() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Download and make what a guest needs, unless the cache has it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return machine.Build(cmd.Context(), machine.Options{Out: os.Stdout})
		},
	}
}

func up(name *string) *cobra.Command {
	var o machine.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a guest and wait until it takes orders",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Name, o.Out = *name, os.Stdout
			_, err := machine.Up(cmd.Context(), o)
			return err
		},
	}
	lifetimeFlag(cmd, &o.Lifetime)
	return cmd
}

func lifetimeFlag(cmd *cobra.Command, lifetime *time.Duration) {
	cmd.Flags().DurationVar(lifetime, "lifetime", time.Hour, "after how long the guest turns itself off, whoever still uses it")
}

func execute(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [--] <program> <arguments>...",
		Short: "Run a program in the guest",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := machine.Find(*name)
			if err != nil {
				return err
			}
			return m.Run(cmd.Context(), machine.Command{Args: args}, os.Stdout, os.Stderr)
		},
	}
	// What follows the program belongs to it.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func down(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Turn the guest off and remove what it left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := machine.Find(*name)
			if errors.Is(err, machine.ErrNotRunning) {
				return nil
			}
			if err != nil {
				return err
			}
			return m.Down(cmd.Context())
		},
	}
}

func console(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "console",
		Short: "Print the end of the guest's console",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			m, err := machine.Find(*name)
			if err != nil {
				return err
			}
			fmt.Print(m.Console())
			return nil
		},
	}
}
