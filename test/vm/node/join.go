package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/machine"
)

// How long each part may take in an emulated guest on a busy machine.
const (
	containerdPatience = 2 * time.Minute
	kubeletPatience    = 5 * time.Minute
)

// Services of the node, for [machine.Machine]'s Start and Stop.
const (
	Containerd = "containerd"
	Kubelet    = "kubelet"
)

// DefaultName is the usual name of the node.
const DefaultName = "dgx-vm"

// Options say which node joins which cluster.
type Options struct {
	// Cluster is the name of the running test cluster, and ClusterProgram the
	// path of its program (bin/cluster).
	Cluster, ClusterProgram string
	// Name is the node's; empty is DefaultName.
	Name string
	// Machine says how the guest is made; what the node needs is added.
	Machine machine.Options
}

// Node is a guest that is a node of a cluster.
type Node struct {
	*machine.Machine
	// Name is the node's.
	Name    string
	options Options
	needs   needs
}

// needs is what `cluster outside-node` tells.
type needs struct {
	Programs     map[string]string
	Kubelet      []string
	Containerd   []string
	Files        map[string]string
	SandboxImage string
	Network      string
}

// folder is where the guest finds its identity and configuration.
const folder = "/host/node"

// Join starts a guest that joins the cluster, and waits until the node is ready.
// The node leaves by Leave.
func Join(ctx context.Context, o Options) (n *Node, err error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Machine.Out == nil {
		o.Machine.Out = io.Discard
	}
	config, err := os.MkdirTemp("", "vm-node-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the node's configuration: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(config)) }()
	n = &Node{Name: o.Name, options: o}
	output, err := n.cluster(ctx, "outside-node", "--node", o.Name, "--address", machine.Address, "--out", config, "--seen-as", folder)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(output), &n.needs); err != nil {
		return nil, fmt.Errorf("read what the node needs: %w", err)
	}
	if err := os.WriteFile(filepath.Join(config, needsFile), []byte(output), 0o644); err != nil {
		return nil, fmt.Errorf("note what the node needs: %w", err)
	}
	if n.Machine, err = machine.Up(ctx, n.machineOptions()); err != nil {
		return nil, err
	}
	if err := n.join(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("the guest does not become a node: %w\n%s", err, n.Report(ctx)), n.Leave(ctx))
	}
	return n, nil
}

// needsFile keeps, in the guest's folder, what the node needs.
const needsFile = "needs.json"

// Find returns the node in a guest that runs already, or [machine.ErrNotRunning].
func Find(o Options) (*Node, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Machine.Out == nil {
		o.Machine.Out = io.Discard
	}
	m, err := machine.Find(o.Machine.Name)
	if err != nil {
		return nil, err
	}
	n := &Node{Machine: m, Name: o.Name, options: o}
	content, err := os.ReadFile(filepath.Join(n.Share(), "node", needsFile))
	if err != nil {
		return nil, fmt.Errorf("the guest %s is no node: %w", o.Machine.Name, err)
	}
	if err := json.Unmarshal(content, &n.needs); err != nil {
		return nil, fmt.Errorf("read what the node needs: %w", err)
	}
	return n, nil
}

// machineOptions adds to the guest what a node needs.
func (n *Node) machineOptions() machine.Options {
	o := n.options.Machine
	programs := map[string]string{}
	for name, path := range n.needs.Programs {
		switch name {
		case "containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet":
			programs[filepath.Join("usr/local/bin", name)] = path
		default:
			programs[filepath.Join("opt/cni/bin", name)] = path
		}
	}
	for to, from := range o.Programs {
		programs[to] = from
	}
	o.Programs, o.Network = programs, n.needs.Network
	o.Ports = append(o.Ports, 10250)
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 2560
	}
	o.Modules = append(o.Modules, "overlay", "veth", "bridge", "br_netfilter", "nf_tables", "nf_conntrack", "nft_chain_nat", "nft_masq",
		"vfio-pci", "vfio_iommu_type1", "8021q", "ib_core", "ib_uverbs", "ib_umad", "rdma_ucm", "rdma_rxe")
	return o
}

func (n *Node) join(ctx context.Context, config string) error {
	if err := os.CopyFS(filepath.Join(n.Share(), "node"), os.DirFS(config)); err != nil {
		return fmt.Errorf("give the guest the node's configuration: %w", err)
	}
	script := "set -e; mkdir -p /var/lib/kubelet /etc/containerd/certs.d /etc/cdi; echo " + n.Name + " > /etc/hostname\n"
	for to, from := range n.needs.Files {
		script += fmt.Sprintf("mkdir -p %s; cp %s %s\n", filepath.Dir(to), filepath.Join(folder, from), to)
	}
	if _, err := n.Output(ctx, machine.Command{Args: []string{"sh", "-c", script}}); err != nil {
		return err
	}
	return n.boot(ctx)
}

// boot starts what a node starts when its machine has come up.
func (n *Node) boot(ctx context.Context) error {
	if _, err := n.Output(ctx, machine.Command{Args: []string{"hostname", n.Name}}); err != nil {
		return err
	}
	if err := n.step("containerd", func() error { return n.StartContainerd(ctx) }); err != nil {
		return err
	}
	if err := n.LoadImage(ctx, filepath.Join(n.Share(), "node", n.needs.SandboxImage)); err != nil {
		return err
	}
	return n.step("The node "+n.Name, func() error {
		if err := n.StartKubelet(ctx); err != nil {
			return err
		}
		return n.awaitReady(ctx)
	})
}

// Reboot cuts the node's power, in effect, and waits until it is ready again.
func (n *Node) Reboot(ctx context.Context) error {
	if err := n.step("Rebooting", func() error { return n.Machine.Reboot(ctx) }); err != nil {
		return err
	}
	return n.boot(ctx)
}

// StartContainerd starts containerd and waits until it answers.
func (n *Node) StartContainerd(ctx context.Context) error {
	if err := n.Start(ctx, Containerd, machine.Command{Args: append([]string{"containerd"}, n.needs.Containerd...)}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, containerdPatience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := n.Output(ctx, machine.Command{Args: []string{"ctr", "--connect-timeout", "5s", "version"}})
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w", err)
		}
	}
}

// StartKubelet starts kubelet; the node is ready some seconds later.
func (n *Node) StartKubelet(ctx context.Context) error {
	return n.Start(ctx, Kubelet, machine.Command{Args: append([]string{"kubelet"}, n.needs.Kubelet...)})
}

// LoadImage imports an image archive (OCI layout or docker save) into the node.
func (n *Node) LoadImage(ctx context.Context, archive string) (err error) {
	name := filepath.Join(n.Share(), "image-"+filepath.Base(archive))
	content, err := os.ReadFile(archive)
	if err != nil {
		return fmt.Errorf("read the image archive: %w", err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		return fmt.Errorf("give the guest the image archive: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	return n.step("Loading "+filepath.Base(archive), func() error {
		_, err := n.Output(ctx, machine.Command{Args: []string{
			"ctr", "--namespace", "k8s.io", "images", "import", "--local", "--snapshotter", "overlayfs", n.Guest(name),
		}})
		return err
	})
}

// awaitReady waits until the node is ready in its present life.
func (n *Node) awaitReady(ctx context.Context) error {
	bootID, err := n.Output(ctx, machine.Command{Args: []string{"cat", "/proc/sys/kernel/random/boot_id"}})
	if err != nil {
		return err
	}
	for _, condition := range []string{"create", "jsonpath={.status.nodeInfo.bootID}=" + strings.TrimSpace(bootID), "condition=Ready"} {
		_, err := n.Kubectl(ctx, "wait", "node/"+n.Name, "--for="+condition, fmt.Sprintf("--timeout=%.0fs", kubeletPatience.Seconds()))
		if err != nil {
			return err
		}
	}
	return nil
}

// Leave ends the guest, and removes the node from the cluster.
func (n *Node) Leave(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	err := n.Down(ctx)
	if _, deleteErr := n.Kubectl(ctx, "delete", "node", n.Name, "--ignore-not-found"); deleteErr != nil {
		err = errors.Join(err, deleteErr)
	}
	return err
}

// Kubectl runs the cluster's kubectl as its admin.
func (n *Node) Kubectl(ctx context.Context, args ...string) (string, error) {
	return n.cluster(ctx, "kubectl", append([]string{"--"}, args...)...)
}

// Report is what a person needs to know about a node that does not work.
func (n *Node) Report(ctx context.Context) string {
	var report strings.Builder
	for _, service := range []string{Containerd, Kubelet} {
		tail, err := n.Output(ctx, machine.Command{Args: []string{"tail", "-n", "15", "/var/log/" + service + ".log"}})
		fmt.Fprintf(&report, "== %s\n%s", service, tail)
		if err != nil {
			fmt.Fprintln(&report, err)
		}
	}
	fmt.Fprintf(&report, "== console\n%s\n", n.Console())
	return report.String()
}

// cluster runs the program of the test cluster.
func (n *Node) cluster(ctx context.Context, order string, args ...string) (string, error) {
	all := append([]string{order, "--name", n.options.Cluster}, args...)
	cmd := exec.CommandContext(ctx, n.options.ClusterProgram, all...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cluster %s: %w: %s", strings.Join(all, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// step says how long something took.
func (n *Node) step(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(n.options.Machine.Out, "%-36s %6.1fs\n", what, time.Since(start).Seconds())
	return nil
}
