package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cluster"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

func (o *options) down() *cobra.Command {
	var logsTo string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove every trace of the cluster; works after any crash",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, _ []string) error {
			if logsTo != "" {
				if err := c.KeepLogs(logsTo); err != nil {
					return err
				}
			}
			return c.Down(ctx)
		}),
	}
	cmd.Flags().StringVar(&logsTo, "logs-to", "", "copy the logs to this folder first")
	return cmd
}

func (o *options) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the names of the clusters that run, except those with a --state-dir of their own",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names, err := cluster.Running(stateRoot)
			for _, name := range names {
				fmt.Println(name)
			}
			return err
		},
	}
}

func (o *options) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show which components run",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, _ []string) error {
			return c.Status(ctx, os.Stdout)
		}),
	}
}

func (o *options) loadImage() *cobra.Command {
	return &cobra.Command{
		Use:   "load-image <archive>...",
		Short: "Import image archives (OCI layout or docker save) into the node",
		Args:  cobra.MinimumNArgs(1),
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, args []string) error {
			return c.LoadImage(ctx, args)
		}),
	}
}

func (o *options) kubeconfig() *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of the admin's kubeconfig",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, _ []string) error {
			if _, err := c.Load(); err != nil {
				return err
			}
			fmt.Println(c.State.Kubeconfig())
			return nil
		}),
	}
}

func (o *options) logs() *cobra.Command {
	return &cobra.Command{
		Use:   "logs [component]",
		Short: "Print the logs of one component, or of all",
		Args:  cobra.MaximumNArgs(1),
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, args []string) error {
			pattern := "*.log"
			if len(args) == 1 {
				pattern = args[0] + ".log"
			}
			files, err := filepath.Glob(filepath.Join(c.State.Logs(), pattern))
			if err != nil {
				return fmt.Errorf("look for logs: %w", err)
			}
			if len(files) == 0 {
				return fmt.Errorf("no log %s in %s", pattern, c.State.Logs())
			}
			sort.Strings(files)
			for _, file := range files {
				if len(files) > 1 {
					fmt.Printf("==> %s <==\n", strings.TrimSuffix(filepath.Base(file), ".log"))
				}
				if err := copyFile(os.Stdout, file); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func copyFile(out io.Writer, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(out, f); err != nil {
		return fmt.Errorf("print a log: %w", err)
	}
	return nil
}

func (o *options) order(op, short string) *cobra.Command {
	return &cobra.Command{
		Use:   op + " <component>",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, args []string) error {
			return c.Order(ctx, op, args[0])
		}),
	}
}

func (o *options) restart() *cobra.Command {
	gates, serving := "", ""
	cmd := o.order("restart", "Stop a component, wait for its end, start it")
	cmd.Flags().StringVar(&gates, "feature-gates", "", "gates of the form A=true,B=false that the component has from then on; empty: as before")
	cmd.Flags().StringVar(&serving, "runtime-config", "", "API groups and versions to turn on or off, which the API server has from then on; empty: as before")
	cmd.RunE = o.rooted(func(ctx context.Context, c *cluster.Cluster, args []string) error {
		more := []string{}
		if serving != "" {
			if args[0] != config.APIServer {
				return fmt.Errorf("--runtime-config: component %q does not take it", args[0])
			}
			more = append(more, "--runtime-config="+serving)
		}
		if gates == "" {
			return c.Order(ctx, "restart", args[0], more...)
		}
		if role, ok := config.RoleOf(args[0]); !ok || role != config.ControlPlane || args[0] == config.Etcd {
			return fmt.Errorf("--feature-gates: component %q does not take them from its command line", args[0])
		}
		return c.Order(ctx, "restart", args[0], append(more, "--feature-gates="+gates)...)
	})
	return cmd
}

func (o *options) node() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node [--] <command>...",
		Short: "Run a command inside the node, with the cluster's programs in PATH",
		Args:  cobra.MinimumNArgs(1),
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, args []string) error {
			return c.Node(ctx, args, os.Stdin, os.Stdout, os.Stderr)
		}),
	}
	// What follows the command belongs to it.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (o *options) kubectl() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubectl [--] <arguments>...",
		Short: "Run the cluster's kubectl as its admin",
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, args []string) error {
			have, err := c.Load()
			if err != nil {
				return err
			}
			// A program takes the first of two values of a variable, and the
			// caller's may lead to another cluster.
			env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBECONFIG=") })
			env = append(env, "KUBECONFIG="+c.State.Kubeconfig())
			err = syscall.Exec(have.Programs["kubectl"], append([]string{"kubectl"}, args...), env)
			return fmt.Errorf("run kubectl: %w", err)
		}),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (o *options) reboot() *cobra.Command {
	return &cobra.Command{
		Use:   "reboot",
		Short: "Reboot the node: end everything on it, start it with a new boot id and an empty /run",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, _ []string) error {
			return c.Reboot(ctx)
		}),
	}
}

func (o *options) disconnect() *cobra.Command {
	return &cobra.Command{
		Use:   "disconnect",
		Short: "Cut the node off from its control plane",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, _ []string) error {
			return c.Disconnect()
		}),
	}
}

func (o *options) connect() *cobra.Command {
	return &cobra.Command{
		Use:   "connect",
		Short: "Undo disconnect",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(_ context.Context, c *cluster.Cluster, _ []string) error {
			return c.Connect()
		}),
	}
}
