package guest

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/machine"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/node"
)

const (
	// manifests are the kustomization under test.
	manifests = "test/guest/testdata/manifests"
	// hybrid is the label that the driver's DaemonSet looks for.
	hybrid = "eks.amazonaws.com/compute-type"
	// module is where the API of NetworkAttachmentDefinitions comes from.
	module = "github.com/k8snetworkplumbingwg/network-attachment-definition-client"
	// installPatience is how long it takes until the driver is there.
	installPatience = 5 * time.Minute
)

// world is what all tests share. TestMain sets it before the first of them.
var world struct { //nolint:gochecknoglobals // the only way from TestMain to the tests
	*harness.Cluster
	node *node.Node
	// vfsBefore is how many VFs each card had before the driver was installed,
	// by the card's address.
	vfsBefore map[string]string
}

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("SKIP: tests in a guest need a cluster, which -short leaves out")
		return
	}
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: the guest joins a cluster, which needs root")
		return
	}
	os.Exit(run(m))
}

// run brings cluster and guest up, runs all tests, and takes both down again,
// also after an interrupt.
func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := cmp.Or(os.Getenv("GUEST_CLUSTER"), "guest")
	unlock, err := harness.Lock(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	defer func() { _ = unlock() }() // the end of this process unlocks, too

	code := 1
	if err := setUp(ctx, name); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		if world.node != nil && ctx.Err() == nil {
			world.Report(ctx, os.Stderr)
		}
	} else {
		ended := make(chan int, 1)
		go func() { ended <- m.Run() }()
		select {
		case code = <-ended:
		case <-ctx.Done():
			fmt.Fprintln(os.Stderr, "interrupted")
		}
	}
	if os.Getenv("GUEST_KEEP") != "" {
		return code
	}
	if err := takeDown(ctx, code != 0); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %v\n", err)
		return 1
	}
	return code
}

// setUp leaves a cluster whose only hybrid node is the guest, with the driver on
// it.
func setUp(ctx context.Context, name string) error {
	steps := harness.Steps{Out: os.Stderr}
	cluster, err := harness.Start(ctx, name, steps)
	if err != nil {
		return err
	}
	world.Cluster = cluster
	// Of the cluster only the control plane is used.
	if _, err := cluster.Kubectl(ctx, "label", "nodes", "--all", hybrid+"-"); err != nil {
		return err
	}
	if err := steps.Do("Making the guest a node", func() error { return join(ctx, name) }); err != nil {
		return err
	}
	if _, err := cluster.Kubectl(ctx, "label", "node", world.node.Name, hybrid+"=hybrid"); err != nil {
		return err
	}
	if err := applyNetworks(ctx); err != nil {
		return err
	}
	world.vfsBefore = map[string]string{}
	for _, card := range cards() {
		if world.vfsBefore[card.address], err = onNode(ctx, "cat", card.sysfs("sriov_numvfs")); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, installPatience)
	defer cancel()
	return cluster.InstallDriver(ctx, manifests)
}

// join makes the guest a node, or goes on with the one that was kept.
func join(ctx context.Context, name string) error {
	o := node.Options{
		Cluster:        name,
		ClusterProgram: cmp.Or(os.Getenv("CLUSTER_BIN"), filepath.Join(world.Root, "bin", "cluster")),
		Machine:        machine.Options{Name: name, Out: os.Stderr},
	}
	n, err := node.Find(o)
	if errors.Is(err, machine.ErrNotRunning) {
		n, err = node.Join(ctx, o)
	}
	if err != nil {
		return err
	}
	world.node = n
	images, err := harness.FindImages(ctx, world.Steps)
	if err != nil {
		return err
	}
	for _, archive := range []string{images.Driver, images.Workload} {
		if err := n.LoadImage(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

// applyNetworks adds the API of NetworkAttachmentDefinitions to the cluster, as
// its own project publishes it.
func applyNetworks(ctx context.Context) error {
	find := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	find.Dir = world.Root
	dir, err := find.Output()
	if err != nil {
		return fmt.Errorf("look for the module %s: %w", module, err)
	}
	crd := filepath.Join(strings.TrimSpace(string(dir)), "artifacts", "networks-crd.yaml")
	if _, err := world.Kubectl(ctx, "apply", "-f", crd); err != nil {
		return err
	}
	_, err = world.Kubectl(ctx, "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io", "--timeout=60s")
	return err
}

func takeDown(ctx context.Context, failed bool) error {
	var err error
	if world.node != nil {
		if failed {
			fmt.Fprintln(os.Stderr, world.node.Report(ctx))
		}
		err = world.node.Leave(ctx)
	}
	if world.Cluster != nil {
		err = errors.Join(err, world.Stop(ctx))
	}
	return err
}

// onNode runs a program in the guest and returns what it printed.
func onNode(ctx context.Context, args ...string) (string, error) {
	out, err := world.node.Output(ctx, machine.Command{Args: args})
	return strings.TrimSpace(out), err
}
