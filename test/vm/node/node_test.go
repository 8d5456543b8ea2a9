//go:build vm

package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/machine"
)

// patience is how long a pod may take in an emulated guest.
const patience = 3 * time.Minute

// program is the test cluster's; `make cluster` builds it.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CLUSTER_BIN")
	if path == "" {
		path = "../../../bin/cluster"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the test cluster's program is not built (make cluster): %v", err)
	}
	return path
}

// cluster brings up a cluster for the time of the test. Its name follows that of
// test/guest, so that two runs on one machine do not share theirs.
func cluster(t *testing.T) Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a cluster needs root")
	}
	name := cmp.Or(os.Getenv("GUEST_CLUSTER"), "guest") + "-node"
	unlock, err := harness.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	})
	o := Options{Cluster: name, ClusterProgram: program(t), Machine: machine.Options{Name: name, Out: os.Stdout}}
	order := func(ctx context.Context, order string) error {
		cmd := exec.CommandContext(ctx, o.ClusterProgram, order, "--name", name)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
	t.Cleanup(func() {
		if err := order(context.WithoutCancel(t.Context()), "down"); err != nil {
			t.Error(err)
		}
	})
	if err := order(t.Context(), "up"); err != nil {
		t.Fatal(err)
	}
	return o
}

const pod = `apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: pause, image: "localhost/pause:1", imagePullPolicy: Never}]
`

// runPod runs a pod on the node and waits until it is ready.
func runPod(t *testing.T, n *Node, name string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), n.options.ClusterProgram, "kubectl", "--name", n.options.Cluster, "--", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(pod, name, n.Name))
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	kubectl(t, n, "wait", "pod/"+name, "--for=condition=Ready", "--timeout="+patience.String())
}

func kubectl(t *testing.T, n *Node, args ...string) string {
	t.Helper()
	out, err := n.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, n.Report(t.Context()))
	}
	return strings.TrimSpace(out)
}

func guest(t *testing.T, n *Node, args ...string) string {
	t.Helper()
	out, err := n.Output(t.Context(), machine.Command{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestTheGuestIsANode(t *testing.T) {
	n, err := Join(t.Context(), cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Leave(t.Context()); err != nil {
			t.Error(err)
		}
	})
	kernel := guest(t, n, "uname", "-r")
	if got := kubectl(t, n, "get", "node", n.Name, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"); !strings.HasPrefix(got, kernel) {
		t.Errorf("the node says that its kernel is %s, the guest's is %s", got, kernel)
	}
	runPod(t, n, "first")
	// By way of the API server, which has to reach the guest's kubelet.
	if got := kubectl(t, n, "get", "--raw", "/api/v1/nodes/"+n.Name+"/proxy/pods"); !strings.Contains(got, `"name":"first"`) {
		t.Errorf("kubelet knows no pod first: %.300s", got)
	}
	guest(t, n, "sh", "-c", "ip link set $(ls /sys/bus/pci/devices/0000:43:00.0/net) up && echo 2 > /sys/bus/pci/devices/0000:43:00.0/sriov_numvfs")
	if got := guest(t, n, "cat", "/sys/bus/pci/devices/0000:43:10.2/vendor"); got != "0x8086" {
		t.Errorf("the VF is of %s", got)
	}

	if err := n.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := guest(t, n, "cat", "/sys/bus/pci/devices/0000:43:00.0/sriov_numvfs"); got != "0" {
		t.Errorf("the card has %s VFs after a reboot", got)
	}
	runPod(t, n, "second")
	kubectl(t, n, "wait", "pod/first", "--for=condition=Ready", "--timeout="+patience.String())
}
