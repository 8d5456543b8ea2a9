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
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/node"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/plugins"
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
		Short: "Download and make what a guest and the tests on a node in it need, unless the cache has it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := machine.Build(cmd.Context(), machine.Options{Out: os.Stdout}); err != nil {
				return err
			}
			for _, plugin := range []string{plugins.Multus, plugins.SRIOV} {
				if _, err := plugins.Ensure(cmd.Context(), plugin, os.Stdout); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func up(name *string) *cobra.Command {
	var o node.Options
	var images []string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a guest, as a node of a test cluster if one is named, and wait until it takes orders",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Machine.Name, o.Machine.Out = *name, os.Stdout
			if o.Cluster == "" {
				_, err := machine.Up(cmd.Context(), o.Machine)
				return err
			}
			n, err := node.Join(cmd.Context(), o)
			if err != nil {
				return err
			}
			for _, image := range images {
				if err := n.LoadImage(cmd.Context(), image); err != nil {
					return err
				}
			}
			return nil
		},
	}
	lifetimeFlag(cmd, &o.Machine.Lifetime)
	flags := cmd.Flags()
	flags.StringVar(&o.Cluster, "join", "", "name of a running test cluster that the guest joins as a node")
	flags.StringVar(&o.ClusterProgram, "cluster-program", "bin/cluster", "path of the test cluster's program")
	flags.StringVar(&o.Name, "node-name", node.DefaultName, "name of the node")
	flags.StringArrayVar(&images, "image", nil, "image archive to load into the node")
	flags.IntVar(&o.Machine.MemoryMiB, "memory", 0, "memory in MiB (default: 1024, and 2560 for a node)")
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
