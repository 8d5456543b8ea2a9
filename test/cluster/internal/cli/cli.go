package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cluster"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/parts"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/preflight"
)

// stateRoot holds the state folders of clusters that are known by name.
const stateRoot = "/var/lib/eks-hybrid-dra-cluster"

// options are the flags.
type options struct {
	name, stateDir, cache, source string
	config                        config.Config
}

// Run obeys the command line and returns the exit status.
func Run(ctx context.Context, args []string) int {
	if len(args) == 3 && args[0] == namespace.InitCommand {
		err := namespace.RunInit(ctx, config.State{Dir: args[1]}, config.Role(args[2]))
		return report(err)
	}
	root := command()
	root.SetArgs(args)
	return report(root.ExecuteContext(ctx))
}

// report prints an error and returns the exit status that fits it: that of the
// command run inside the node, if there was one.
func report(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "cluster:", err)
	return 1
}

func command() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real one-node Kubernetes cluster, built from Go modules, without Docker",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.name, "name", "default", "name of the cluster; several can run beside each other")
	flags.StringVar(&o.stateDir, "state-dir", "", "folder of everything the cluster writes (default "+stateRoot+"/<name>)")
	flags.StringVar(&o.cache, "cache", parts.DefaultCache(), "folder of what is built; also $"+parts.CacheEnv)
	flags.StringVar(&o.source, "source", "", "folder with parts/ (default: looked for from the working folder and the program upwards)")
	root.AddCommand(o.build(), o.up(), o.down(), o.list(), o.status(), o.loadImage(), o.kubeconfig(), o.logs(),
		o.order("start", "Start a component that was stopped"),
		o.order("stop", "End a component with SIGTERM; it stays stopped"),
		o.order("kill", "End a component with SIGKILL; it stays stopped"),
		o.restart(),
		o.node(), o.kubectl(), o.reboot(), o.disconnect(), o.connect(), o.outsideNode())
	return root
}

func (o *options) cluster() (*cluster.Cluster, error) {
	dir := o.stateDir
	if dir == "" {
		dir = filepath.Join(stateRoot, o.name)
	}
	state, err := config.NewState(dir)
	if err != nil {
		return nil, err
	}
	return &cluster.Cluster{Name: o.name, State: state, Out: os.Stdout}, nil
}

// rooted wraps an order to a cluster.
func (o *options) rooted(do func(ctx context.Context, c *cluster.Cluster, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := preflight.Root(); err != nil {
			return err
		}
		c, err := o.cluster()
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}
}

func (o *options) versionFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.config.KubernetesVersion, "kubernetes-version", parts.DefaultKubernetesVersion, "version of all Kubernetes programs")
}

func (o *options) buildParts(ctx context.Context, out io.Writer) (*parts.Set, error) {
	if err := preflight.Go(); err != nil {
		return nil, err
	}
	source, err := o.findSource()
	if err != nil {
		return nil, err
	}
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return nil, fmt.Errorf("--cache %q: %w", o.cache, err)
	}
	return (&parts.Builder{Source: source, Cache: cache, Out: out}).Build(ctx, o.config.KubernetesVersion)
}

func (o *options) findSource() (string, error) {
	if o.source != "" {
		return filepath.Abs(o.source)
	}
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if program, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(program))
	}
	return parts.FindSource(starts...)
}

func (o *options) build() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the cluster's programs into the cache",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := o.buildParts(cmd.Context(), os.Stdout)
			return err
		},
	}
	o.versionFlag(cmd)
	return cmd
}

func (o *options) up() *cobra.Command {
	auditPolicy := ""
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster and wait until its node is ready",
		Args:  cobra.NoArgs,
		RunE: o.rooted(func(ctx context.Context, c *cluster.Cluster, _ []string) error {
			o.config.Name = o.name
			if auditPolicy != "" {
				content, err := os.ReadFile(auditPolicy)
				if err != nil {
					return fmt.Errorf("--audit-policy: %w", err)
				}
				o.config.AuditPolicy = string(content)
			}
			if err := o.config.Validate(); err != nil {
				return err
			}
			if err := preflight.Machine(); err != nil {
				return fmt.Errorf("this machine lacks something that a cluster needs: %w", err)
			}
			set, err := o.buildParts(ctx, c.Out)
			if err != nil {
				return err
			}
			o.config.Programs = set.Programs
			return c.Up(ctx, &o.config)
		}),
	}
	o.versionFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.config.FeatureGates, "feature-gates", "", "feature gates of all components, as A=true,B=false")
	flags.StringVar(&o.config.RuntimeConfig, "runtime-config", "", "API groups and versions to turn on or off, as kube-apiserver takes them")
	flags.StringVar(&auditPolicy, "audit-policy", "", "file with an audit policy; the API server then writes the log audit")
	flags.StringVar(&o.config.NodeName, "node-name", "dgx-0", "name of the node")
	flags.StringVar(&o.config.NodeLabels, "node-labels", "eks.amazonaws.com/compute-type=hybrid", "labels of the node, as a=b,c=d")
	return cmd
}
