package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// tool is the program of test/cluster, used on one cluster.
type tool struct {
	path string
	name string
	show io.Writer
}

// findTool returns the program that CLUSTER_BIN names, or builds bin/cluster.
func findTool(ctx context.Context, name string, steps Steps) (tool, error) {
	if path := os.Getenv("CLUSTER_BIN"); path != "" {
		return tool{path: path, name: name, show: steps.Out}, nil
	}
	root, err := Repository()
	if err != nil {
		return tool{}, err
	}
	path := filepath.Join(root, "bin", "cluster")
	// Go's own cache makes this quick when nothing changed.
	_, err = command{Path: "go", Args: []string{"build", "-C", filepath.Join(root, "test", "cluster"), "-o", path, "."}}.run(ctx)
	if err != nil {
		return tool{}, fmt.Errorf("building the cluster program: %w", err)
	}
	return tool{path: path, name: name, show: steps.Out}, nil
}

// up starts the cluster, or goes on with it when it is up already.
// E2E_KUBERNETES_VERSION chooses another version than the usual one, and
// E2E_AUDIT_POLICY names the file with the API server's audit policy.
func (t tool) up(ctx context.Context) error {
	args := []string{"up", "--name", t.name}
	if version := os.Getenv("E2E_KUBERNETES_VERSION"); version != "" {
		args = append(args, "--kubernetes-version", version)
	}
	if policy := os.Getenv("E2E_AUDIT_POLICY"); policy != "" {
		args = append(args, "--audit-policy", policy)
	}
	_, err := t.command(t.show, args...).run(ctx)
	return err
}

// list returns the names of the clusters that run.
func (t tool) list(ctx context.Context) ([]string, error) {
	out, err := t.command(nil, "list").run(ctx)
	return strings.Fields(out), err
}

// down takes the cluster away whole, after copying its logs where a folder is
// given. It is also called to clean up after an interrupt, when ctx is done
// already.
func (t tool) down(ctx context.Context, logs string) error {
	args := []string{"down", "--name", t.name}
	if logs != "" {
		args = append(args, "--logs-to", logs)
	}
	_, err := t.command(t.show, args...).run(context.WithoutCancel(ctx))
	return err
}

func (t tool) loadImage(ctx context.Context, tar string) error {
	_, err := t.command(t.show, "load-image", "--name", t.name, tar).run(ctx)
	return err
}

// kubeconfig returns the path of the admin's kubeconfig.
func (t tool) kubeconfig(ctx context.Context) (string, error) {
	out, err := t.command(nil, "kubeconfig", "--name", t.name).run(ctx)
	return strings.TrimSpace(out), err
}

// logs returns what a component wrote.
func (t tool) logs(ctx context.Context, component string) (string, error) {
	return t.command(nil, "logs", "--name", t.name, component).run(ctx)
}

// node runs a program in the node's namespaces, as an admin logged in there.
func (t tool) node(ctx context.Context, program ...string) (string, error) {
	return t.command(nil, append([]string{"node", "--name", t.name, "--"}, program...)...).run(ctx)
}

// reboot returns when the node runs again.
func (t tool) reboot(ctx context.Context) error {
	_, err := t.command(nil, "reboot", "--name", t.name).run(ctx)
	return err
}

// restart ends a component of the cluster and starts it again, with other
// feature gates, and the API server serving other versions, if these are not
// empty.
func (t tool) restart(ctx context.Context, component, gates, versions string) error {
	_, err := t.command(nil, "restart", "--name", t.name, "--feature-gates", gates, "--runtime-config", versions, component).run(ctx)
	return err
}

// disconnect cuts the node off from its control plane.
func (t tool) disconnect(ctx context.Context) error {
	_, err := t.command(nil, "disconnect", "--name", t.name).run(ctx)
	return err
}

// connect undoes disconnect.
func (t tool) connect(ctx context.Context) error {
	_, err := t.command(nil, "connect", "--name", t.name).run(ctx)
	return err
}

// kubectl runs the cluster's own kubectl as its admin.
func (t tool) kubectl(args ...string) command {
	return t.command(nil, append([]string{"kubectl", "--name", t.name, "--"}, args...)...)
}

func (t tool) command(show io.Writer, args ...string) command {
	return command{Path: t.path, Args: args, Show: show}
}

// ErrNoNode says why a node cannot be looked at.
var ErrNoNode = errors.New("the cluster that E2E_KUBECONFIG names gives no access to its node")
