package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is a running cluster of one node.
type Cluster struct {
	// Client and Rest act as the cluster's admin.
	Client kubernetes.Interface
	Rest   *rest.Config
	// Kubeconfig is the path of the admin's kubeconfig.
	Kubeconfig string
	// Root is the folder of the repository.
	Root string

	// Steps tells what is being done.
	Steps Steps
	// tool is nil for a cluster that somebody else brought up.
	tool *tool
}

// Check says in one line why no cluster can be started here, or returns nil.
func Check() error {
	if os.Getenv("E2E_KUBECONFIG") == "" && os.Geteuid() != 0 {
		return errors.New("a cluster needs root: run this as root, or name an existing cluster by E2E_KUBECONFIG")
	}
	return nil
}

// Start brings up the named cluster, or goes on with it where it is up already,
// and puts the images into it. With E2E_KUBECONFIG set it takes that cluster as
// it is, and expects the images there.
func Start(ctx context.Context, name string, steps Steps) (*Cluster, error) {
	root, err := Repository()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Root: root, Steps: steps, Kubeconfig: os.Getenv("E2E_KUBECONFIG")}
	if c.Kubeconfig == "" {
		if err := c.bringUp(ctx, name); err != nil {
			return nil, errors.Join(err, c.Stop(ctx))
		}
	}
	if err := c.connect(ctx); err != nil {
		return nil, errors.Join(err, c.Stop(ctx))
	}
	return c, nil
}

func (c *Cluster) bringUp(ctx context.Context, name string) error {
	images, err := FindImages(ctx, c.Steps)
	if err != nil {
		return err
	}
	t, err := findTool(ctx, name, c.Steps)
	if err != nil {
		return err
	}
	c.tool = &t
	if err := c.Steps.Do("Starting the cluster "+name, func() error { return t.up(ctx) }); err != nil {
		return err
	}
	return c.Steps.Do("Loading the images", func() error {
		for _, tar := range []string{images.Driver, images.Workload} {
			if err := t.loadImage(ctx, tar); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Cluster) connect(ctx context.Context) error {
	if c.tool != nil {
		path, err := c.tool.kubeconfig(ctx)
		if err != nil {
			return fmt.Errorf("asking for the kubeconfig: %w", err)
		}
		c.Kubeconfig = path
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	// Tests wait for many things at once; the client must not be what they
	// wait for.
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	c.Rest, c.Client = config, client
	return nil
}

// Stop takes the cluster away, if Start brought it up.
func (c *Cluster) Stop(ctx context.Context) error { return c.stop(ctx, "") }

// StopKeepingLogs is Stop after copying the logs of the cluster's programs to a
// folder.
func (c *Cluster) StopKeepingLogs(ctx context.Context, folder string) error {
	return c.stop(ctx, folder)
}

func (c *Cluster) stop(ctx context.Context, logs string) error {
	if c.tool == nil {
		return nil
	}
	return c.Steps.Do("Taking the cluster "+c.tool.name+" down", func() error { return c.tool.down(ctx, logs) })
}

// HowToUse tells a person how to use the cluster and how to take it down.
func (c *Cluster) HowToUse() string {
	if c.tool == nil {
		return "The cluster stays as it is: export KUBECONFIG=" + c.Kubeconfig + "\n"
	}
	run := func(order, rest string) string {
		return strings.TrimRight(fmt.Sprintf("  %s %s --name %s %s", brief(c.tool.path), order, c.tool.name, rest), " ") + "\n"
	}
	return "Use the cluster with\n" +
		run("kubectl", "-- get resourceslices") +
		run("kubectl", "-- apply -f examples/one-gpu.yaml") +
		run("kubectl", "-- logs one-gpu") +
		"or, with a kubectl of your own,\n" +
		"  export KUBECONFIG=" + c.Kubeconfig + "\n" +
		"  kubectl apply -f examples/one-gpu.yaml\n" +
		"No image is pulled: those that the examples name are stand-ins in this cluster,\n" +
		"which know only nvidia-smi, python (for train.py), cat, ip, ls, ping and sleep.\n" +
		"Take the cluster down with\n" + run("down", "")
}

// brief shortens a path below the working directory, for commands that a person
// copies.
func brief(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(short) {
		return short
	}
	return path
}

// Kubectl runs kubectl in the repository's root as the cluster's admin, and
// returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	run := command{Path: "kubectl", Args: args, Env: []string{"KUBECONFIG=" + c.Kubeconfig}}
	if c.tool != nil {
		run = c.tool.kubectl(args...)
	}
	run.Dir = c.Root
	return run.run(ctx)
}

// ApplyKustomization applies a folder of the repository.
func (c *Cluster) ApplyKustomization(ctx context.Context, folder string) error {
	_, err := c.Kubectl(ctx, "apply", "-k", folder)
	return err
}

// Apply applies a file of the repository in the namespace.
func (c *Cluster) Apply(ctx context.Context, namespace, file string) error {
	_, err := c.Kubectl(ctx, "apply", "-n", namespace, "-f", file)
	return err
}
