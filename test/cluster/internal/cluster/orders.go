package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/network"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// Load returns the config of a running cluster.
func (c *Cluster) Load() (*config.Config, error) {
	have, err := c.State.Load()
	if errors.Is(err, os.ErrNotExist) {
		return nil, c.notRunning()
	}
	return have, err
}

// start starts components one after the other.
func (c *Cluster) start(ctx context.Context, components ...string) error {
	for _, component := range components {
		if err := c.Order(ctx, "start", component); err != nil {
			return err
		}
	}
	return nil
}

// Order gives the order start, stop, kill or restart for one component. One that
// is restarted has the flags from then on, until the cluster goes or its
// machine is started anew.
func (c *Cluster) Order(ctx context.Context, op, component string, flags ...string) error {
	role, ok := config.RoleOf(component)
	if !ok {
		return fmt.Errorf("there is no component %q; there are %s", component, strings.Join(config.Components(), ", "))
	}
	if _, ok := namespace.Find(c.State, role); !ok {
		return c.notRunning()
	}
	_, err := supervisor.Send(ctx, c.State.Socket(role), supervisor.Request{Op: op, Name: component, Flags: flags})
	return err
}

// Status prints the state of every component.
func (c *Cluster) Status(ctx context.Context, out io.Writer) error {
	have, err := c.Load()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s, Kubernetes %s, node %s, network %s\n", have.Name, have.KubernetesVersion, have.NodeName, have.Block)
	for _, role := range config.Roles() {
		init, ok := namespace.Find(c.State, role)
		if !ok {
			fmt.Fprintf(out, "%-24s gone\n", role)
			continue
		}
		fmt.Fprintf(out, "%-24s pid %d\n", role, init.PID)
		statuses, err := supervisor.Send(ctx, c.State.Socket(role), supervisor.Request{Op: "status"})
		if err != nil {
			return err
		}
		for _, s := range statuses {
			state := "running"
			if s.PID == 0 {
				state = "stopped"
			}
			fmt.Fprintf(out, "  %-22s %s, restarts %d %s\n", s.Name, state, s.Restarts, s.LastExit)
		}
	}
	return nil
}

// Reboot ends everything on the node at once and starts it again, with a new
// boot id and an empty /run.
func (c *Cluster) Reboot(ctx context.Context) (err error) {
	unlock, err := c.lock(ctx, false)
	if errors.Is(err, os.ErrNotExist) {
		return c.notRunning()
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	have, controlPlane, err := c.controlPlane()
	if err != nil {
		return err
	}
	if err := c.step("Ending the node", func() error { return namespace.Kill(ctx, c.State, config.Node) }); err != nil {
		return err
	}
	var node namespace.Init
	err = c.step("Starting the node", func() (err error) {
		if node, err = c.startNode(ctx, have, controlPlane); err != nil {
			return err
		}
		if err := c.start(ctx, config.Containerd); err != nil {
			return err
		}
		if err := c.prepareContainerd(ctx, have, node); err != nil {
			return err
		}
		return c.start(ctx, config.Kubelet)
	})
	if err != nil {
		return err
	}
	api, err := newAPI(have, c.State)
	if err != nil {
		return err
	}
	return c.awaitNode(ctx, have, api)
}

// Connect joins the node to its control plane, after Disconnect.
func (c *Cluster) Connect() error {
	return c.withControlPlane(network.Connect)
}

// Disconnect cuts the node off from its control plane, as a failed line between
// a site and its cloud does.
func (c *Cluster) Disconnect() error {
	return c.withControlPlane(func(_ *config.Config, ns *os.File) error { return network.Disconnect(ns) })
}

func (c *Cluster) withControlPlane(do func(*config.Config, *os.File) error) (err error) {
	have, controlPlane, err := c.controlPlane()
	if err != nil {
		return err
	}
	ns, err := controlPlane.OpenNetwork()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return do(have, ns)
}

func (c *Cluster) controlPlane() (*config.Config, namespace.Init, error) {
	have, err := c.Load()
	if err != nil {
		return nil, namespace.Init{}, err
	}
	init, ok := namespace.Find(c.State, config.ControlPlane)
	if !ok {
		return nil, init, c.notRunning()
	}
	return have, init, nil
}

// Node runs a command inside the node.
func (c *Cluster) Node(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	have, err := c.Load()
	if err != nil {
		return err
	}
	node, ok := namespace.Find(c.State, config.Node)
	if !ok {
		return c.notRunning()
	}
	return c.run(ctx, have, node, args, in, out, errOut)
}

func (c *Cluster) run(ctx context.Context, have *config.Config, node namespace.Init, args []string, in io.Reader, out, errOut io.Writer) error {
	path, ok := have.Programs[args[0]]
	if !ok {
		var err error
		if path, err = exec.LookPath(args[0]); err != nil {
			return fmt.Errorf("find the command: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = append(os.Environ(), namespace.Environment(have)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errOut
	return node.Run(cmd)
}

// ctr runs containerd's client in the node.
func (c *Cluster) ctr(ctx context.Context, have *config.Config, node namespace.Init, in io.Reader, args ...string) error {
	var errOut bytes.Buffer
	args = append([]string{"ctr", "--namespace", "k8s.io", "--connect-timeout", "5s"}, args...)
	if err := c.run(ctx, have, node, args, in, io.Discard, &errOut); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return nil
}

// LoadImage imports image archives (OCI layout or docker save) into the node.
func (c *Cluster) LoadImage(ctx context.Context, archives []string) error {
	have, err := c.Load()
	if err != nil {
		return err
	}
	node, ok := namespace.Find(c.State, config.Node)
	if !ok {
		return c.notRunning()
	}
	for _, archive := range archives {
		err := c.step("Loading "+filepath.Base(archive), func() error { return c.importImage(ctx, have, node, archive) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) importImage(ctx context.Context, have *config.Config, node namespace.Init, archive string) (err error) {
	runtime, err := config.LoadRuntime(c.State)
	if err != nil {
		return err
	}
	// By stdin: the node may not see the archive's path.
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open the image archive: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = c.ctr(ctx, have, node, f, "images", "import", "--local", "--snapshotter", runtime.Snapshotter, "-")
	if err != nil {
		return fmt.Errorf("import %s: %w", archive, err)
	}
	return nil
}
