package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/cgroup"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/image"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/network"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// Up brings up the cluster that the config describes, unless it is up. The rest
// of a half-dead one is removed first.
func (c *Cluster) Up(ctx context.Context, want *config.Config) (err error) {
	start := time.Now()
	unlock, err := c.lock(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	running, err := c.alreadyUp(ctx, want)
	if err != nil {
		return err
	}
	if running {
		fmt.Fprintf(c.Out, "The cluster %s is up already.\nexport KUBECONFIG=%s\n", want.Name, c.State.Kubeconfig())
		return nil
	}
	if err := c.bringUp(ctx, want); err != nil {
		return fmt.Errorf("%w\nThe logs are in %s; `cluster down --name %s` removes what is there", err, c.State.Logs(), c.Name)
	}
	fmt.Fprintf(c.Out, "The cluster %s is up after %.1fs.\nexport KUBECONFIG=%s\n", want.Name, time.Since(start).Seconds(), c.State.Kubeconfig())
	return nil
}

// alreadyUp finds out whether the cluster is up and healthy, and removes the
// rest of one that is not.
func (c *Cluster) alreadyUp(ctx context.Context, want *config.Config) (bool, error) {
	entries, err := os.ReadDir(c.State.Dir)
	if err != nil {
		return false, fmt.Errorf("read the state folder: %w", err)
	}
	have, loadErr := c.State.Load()
	if loadErr == nil && c.healthy(ctx, have) == nil {
		if !have.SameRequest(want) {
			return false, fmt.Errorf("the cluster %s is up with other settings (Kubernetes %s, node %s, feature gates %q): run `cluster down --name %s` first", have.Name, have.KubernetesVersion, have.NodeName, have.FeatureGates, c.Name)
		}
		return true, nil
	}
	if loadErr != nil && len(entries) > 0 && !ours(entries) {
		return false, fmt.Errorf("--state-dir %s holds files that are not a cluster's: choose a folder that is empty or not there", c.State.Dir)
	}
	if len(entries) == 0 {
		return false, c.clear(ctx)
	}
	return false, c.step("Removing the rest of an old cluster", func() error { return c.clear(ctx) })
}

// ours says whether the entries of a folder can be those of a start that was
// cut off before it wrote cluster.json.
func ours(entries []os.DirEntry) bool {
	for _, entry := range entries {
		switch entry.Name() {
		case "logs", "pki", "etc", "node", "cluster.json.new", "cluster.json", "kubeconfig":
		default:
			return false
		}
	}
	return true
}

// healthy says what of the cluster is not running.
func (c *Cluster) healthy(ctx context.Context, have *config.Config) error {
	for _, role := range config.Roles() {
		if _, ok := namespace.Find(c.State, role); !ok {
			return fmt.Errorf("the %s is gone", role)
		}
		statuses, err := supervisor.Send(ctx, c.State.Socket(role), supervisor.Request{Op: "status"})
		if err != nil {
			return err
		}
		for _, status := range statuses {
			if status.PID == 0 {
				return fmt.Errorf("%s does not run", status.Name)
			}
		}
	}
	api, err := newAPI(have, c.State)
	if err != nil {
		return err
	}
	return api.ready(ctx)
}

func (c *Cluster) bringUp(ctx context.Context, want *config.Config) error {
	if err := os.MkdirAll(c.State.Logs(), 0o755); err != nil {
		return fmt.Errorf("make the folder of the logs: %w", err)
	}
	var controlPlane, node namespace.Init
	err := c.step("Namespaces, network, identities", func() (err error) {
		if controlPlane, err = c.startControlPlane(ctx, want); err != nil {
			return err
		}
		if err := config.WriteNode(want, c.State); err != nil {
			return err
		}
		node, err = c.startNode(ctx, want, controlPlane)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.start(ctx, config.Etcd, config.APIServer, config.Containerd); err != nil {
		return err
	}
	if err := c.step("containerd", func() error { return c.prepareContainerd(ctx, want, node) }); err != nil {
		return err
	}
	api, err := newAPI(want, c.State)
	if err != nil {
		return err
	}
	err = c.step("API server", func() error {
		return c.await(ctx, apiTimeout, func() error { return api.ready(ctx) })
	})
	if err != nil {
		return err
	}
	if err := c.start(ctx, config.Kubelet, config.ControllerManager, config.Scheduler); err != nil {
		return err
	}
	if err := c.awaitNode(ctx, want, api); err != nil {
		return err
	}
	return c.step("Service accounts", func() error {
		return c.await(ctx, apiTimeout, func() error {
			_, err := api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
			return err
		})
	})
}

// startControlPlane makes the control plane's namespaces and its link to the
// host, whose address everything else depends on.
func (c *Cluster) startControlPlane(ctx context.Context, want *config.Config) (init namespace.Init, err error) {
	init, release, err := namespace.Spawn(c.State, config.ControlPlane)
	if err != nil {
		return init, err
	}
	if err := c.claimBlock(want, init); err != nil {
		return init, err
	}
	if err := config.WriteIdentities(want, c.State); err != nil {
		return init, err
	}
	if err := release(); err != nil {
		return init, err
	}
	return init, c.awaitSupervisor(ctx, config.ControlPlane)
}

// claimBlock chooses a free network and makes it used, before another cluster
// can choose the same.
func (c *Cluster) claimBlock(want *config.Config, init namespace.Init) (err error) {
	unlock, err := network.LockHost()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	used, err := network.UsedOnHost()
	if err != nil {
		return err
	}
	if want.Block, err = network.FreeBlock(used); err != nil {
		return err
	}
	if err := c.State.Save(want); err != nil {
		return err
	}
	ns, err := init.OpenNetwork()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return network.JoinHost(want, c.State, ns)
}

// startNode makes the node's namespaces, as a boot does: with a new boot id and
// without cgroups of an earlier life.
func (c *Cluster) startNode(ctx context.Context, have *config.Config, controlPlane namespace.Init) (init namespace.Init, err error) {
	if err := cgroup.Remove(ctx, c.State.CgroupName()); err != nil {
		return init, err
	}
	if err := cgroup.Create(c.State.CgroupName()); err != nil {
		return init, err
	}
	if err := os.WriteFile(namespace.BootIDFile(c.State), []byte(newBootID()), 0o644); err != nil {
		return init, fmt.Errorf("write the node's boot id: %w", err)
	}
	init, release, err := namespace.Spawn(c.State, config.Node)
	if err != nil {
		return init, err
	}
	outer, err := controlPlane.OpenNetwork()
	if err != nil {
		return init, err
	}
	defer func() { err = errors.Join(err, outer.Close()) }()
	inner, err := init.OpenNetwork()
	if err != nil {
		return init, err
	}
	defer func() { err = errors.Join(err, inner.Close()) }()
	if err := network.JoinNode(have, outer, inner); err != nil {
		return init, err
	}
	if err := release(); err != nil {
		return init, err
	}
	return init, c.awaitSupervisor(ctx, config.Node)
}

// newBootID makes a random UUID in the form of the kernel's.
func newBootID() string {
	var b [16]byte
	// It never fails (crypto/rand).
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// awaitSupervisor waits until a role's init process takes orders.
func (c *Cluster) awaitSupervisor(ctx context.Context, role config.Role) error {
	err := poll(ctx, supervisorTimeout, func() error {
		_, err := supervisor.Send(ctx, c.State.Socket(role), supervisor.Request{Op: "status"})
		return err
	})
	if err != nil {
		log, readErr := os.ReadFile(filepath.Join(c.State.Logs(), "init-"+string(role)+".log"))
		return fmt.Errorf("the %s does not come up: %w; its log says: %s", role, errors.Join(err, readErr), log)
	}
	return nil
}

// prepareContainerd waits for containerd and gives it the image of sandboxes.
func (c *Cluster) prepareContainerd(ctx context.Context, have *config.Config, node namespace.Init) error {
	archive := c.State.Path("pause.tar")
	f, err := os.Create(archive)
	if err != nil {
		return fmt.Errorf("make the archive of the sandbox image: %w", err)
	}
	if err := errors.Join(image.Write(f, config.PauseImage, have.Programs["pause"]), f.Close()); err != nil {
		return err
	}
	err = c.await(ctx, containerdTimeout, func() error { return c.ctr(ctx, have, node, nil, "version") })
	if err != nil {
		return fmt.Errorf("containerd does not answer, see %s: %w", filepath.Join(c.State.Logs(), "containerd.log"), err)
	}
	return c.importImage(ctx, have, node, archive)
}

func (c *Cluster) awaitNode(ctx context.Context, have *config.Config, api *api) error {
	bootID, err := os.ReadFile(namespace.BootIDFile(c.State))
	if err != nil {
		return fmt.Errorf("read the node's boot id: %w", err)
	}
	return c.step("Node "+have.NodeName, func() error {
		return c.await(ctx, nodeTimeout, func() error { return api.nodeReady(ctx, have.NodeName, string(bootID)) })
	})
}
