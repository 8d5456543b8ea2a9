package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Component is a program of the cluster, of the node or of the control plane.
type Component string

// The components that a user may have to restart.
const (
	Kubelet    Component = "kubelet"
	Containerd Component = "containerd"
	APIServer  Component = "kube-apiserver"
	Scheduler  Component = "kube-scheduler"
)

// OnNode runs a program on the node and returns what it printed. ErrNoNode says
// that the node is out of reach, here and for all that follows.
func (c *Cluster) OnNode(ctx context.Context, program ...string) (string, error) {
	if c.tool == nil {
		return "", ErrNoNode
	}
	return c.tool.node(ctx, program...)
}

// Reboot ends everything on the node at once and starts it anew.
func (c *Cluster) Reboot(ctx context.Context) error {
	if c.tool == nil {
		return ErrNoNode
	}
	return c.tool.reboot(ctx)
}

// Restart ends a component and starts it again. It returns when the API server
// answers, if that is the component.
func (c *Cluster) Restart(ctx context.Context, component Component) error {
	return c.RestartWith(ctx, component, "")
}

// RestartWith is [Cluster.Restart] with other feature gates, of the form
// A=true,B=false, which a component of the control plane has from then on.
func (c *Cluster) RestartWith(ctx context.Context, component Component, gates string) error {
	return c.restart(ctx, component, gates, "")
}

// Serve restarts the API server with other groups and versions turned on or off,
// of the form a/v1=true,a/v2=false, which it has from then on.
func (c *Cluster) Serve(ctx context.Context, versions string) error {
	return c.restart(ctx, APIServer, "", versions)
}

func (c *Cluster) restart(ctx context.Context, component Component, gates, versions string) error {
	if c.tool == nil {
		return ErrNoNode
	}
	if err := c.tool.restart(ctx, string(component), gates, versions); err != nil || component != APIServer {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := c.Client.CoreV1().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, nil
	})
}

// Disconnect cuts the node off from its control plane, as a failed line between
// a site and its cloud does. The API still answers the test.
func (c *Cluster) Disconnect(ctx context.Context) error {
	if c.tool == nil {
		return ErrNoNode
	}
	return c.tool.disconnect(ctx)
}

// Connect undoes Disconnect. It changes nothing where the node is connected.
func (c *Cluster) Connect(ctx context.Context) error {
	if c.tool == nil {
		return ErrNoNode
	}
	return c.tool.connect(ctx)
}

// AuditLog returns the API server's audit log so far: a line of JSON for each
// request of which the policy that E2E_AUDIT_POLICY named tells.
func (c *Cluster) AuditLog(ctx context.Context) (string, error) {
	if c.tool == nil {
		return "", ErrNoNode
	}
	return c.tool.logs(ctx, "audit")
}

// FilesOnNode returns the paths of the files below a folder of the node. There
// are none where the folder does not exist.
func (c *Cluster) FilesOnNode(ctx context.Context, folder string) ([]string, error) {
	out, err := c.OnNode(ctx, "find", filepath.Dir(folder), "-path", folder+"/*", "-type", "f")
	if err != nil {
		return nil, fmt.Errorf("listing %s on the node: %w", folder, err)
	}
	return strings.Fields(out), nil
}
