package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
)

// init returns the process id of a role's init process.
func (c *tool) init(t *testing.T, role config.Role) int {
	t.Helper()
	init, ok := namespace.Find(c.state, role)
	if !ok {
		t.Fatalf("%s: the %s does not run", c.name, role)
	}
	return init.PID
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestCluster is the life of one cluster; each step builds on the ones before.
func TestCluster(t *testing.T) {
	needRoot(t)
	c := newTool(t, build(t, ".", "cluster"), "first")
	t.Log(c.do(t, "up", "--node-labels", "eks.amazonaws.com/compute-type=hybrid,example.com/a=b"))
	for _, step := range []struct {
		name string
		run  func(*testing.T, *tool)
	}{
		{"node", stepNode},
		{"pods", stepPods},
		{"up again", stepUpAgain},
		{"second cluster", stepSecond},
		{"unknown feature gate", stepUnknownGate},
		{"component faults", stepFaults},
		{"disconnect", stepDisconnect},
		{"reboot", stepReboot},
		{"half dead", stepHalfDead},
		{"no trace", stepNoTrace},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) {
			t.FailNow()
		}
	}
}

func stepNode(t *testing.T, c *tool) {
	out := c.do(t, "kubectl", "get", "nodes", "--show-labels", "--no-headers")
	for _, want := range []string{"dgx-0", " Ready ", "v1.37.1", "eks.amazonaws.com/compute-type=hybrid", "example.com/a=b"} {
		if !strings.Contains(out, want) {
			t.Errorf("the node lacks %q:\n%s", want, out)
		}
	}
	// Node authorization: the node's own identity may not read what is not its.
	out, err := c.try("node", "kubectl", "--kubeconfig", c.state.Path("etc", "kubelet.kubeconfig"), "get", "secrets", "-A")
	if err == nil || !strings.Contains(out, "forbidden") {
		t.Errorf("the node reads all secrets: %v\n%s", err, out)
	}
}

func stepPods(t *testing.T, c *tool) {
	c.do(t, "load-image", probeArchive(t))
	c.apply(t, pod("api", "api", false)+pod("api-on-host", "api", true)+pod("sleep", "sleep", false))
	// The token carries the node's name, which admission policies build on.
	const identity = "user system:serviceaccount:default:default node dgx-0"
	c.eventually(t, identity, "kubectl", "logs", "api")
	c.eventually(t, identity, "kubectl", "logs", "api-on-host")
	c.eventually(t, "sleeping", "kubectl", "logs", "sleep")
	if out := c.do(t, "kubectl", "exec", "sleep", "--", "/probe", "say", "hello"); strings.TrimSpace(out) != "hello" {
		t.Errorf("exec gives %q", out)
	}
}

func stepUpAgain(t *testing.T, c *tool) {
	before := c.init(t, config.Node)
	out := c.do(t, "up", "--node-labels", "eks.amazonaws.com/compute-type=hybrid,example.com/a=b")
	if !strings.Contains(out, "is up already") || c.init(t, config.Node) != before {
		t.Errorf("a second up does not leave the cluster as it is:\n%s", out)
	}
	out, err := c.try("up", "--node-name", "other")
	if err == nil || !strings.Contains(out, "is up with other settings") {
		t.Errorf("an up with other settings: %v\n%s", err, out)
	}
}

// stepSecond starts another cluster beside the first, cut off half-way at first.
func stepSecond(t *testing.T, c *tool) {
	second := newTool(t, c.program, "second")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	half := second.command(ctx, "up")
	if err := half.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if _, ok := namespace.Find(second.state, config.Node); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the second cluster does not start")
		}
	}
	kill9(t, half.Process.Pid)
	if err := half.Wait(); err == nil {
		t.Error("the killed up reports success")
	}
	second.do(t, "up", "--feature-gates", "DRANodeAllocatableResources=true", "--node-name", "dgx-1")
	// Whoever runs the tool may be at work on a cluster of their own.
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "another"))
	if out := second.do(t, "kubectl", "get", "nodes", "--no-headers"); !strings.Contains(out, "dgx-1") || strings.Contains(out, "dgx-0") {
		t.Errorf("the second cluster has the nodes\n%s", out)
	}
	if out := second.do(t, "kubectl", "get", "--raw", "/metrics"); !strings.Contains(out, `kubernetes_feature_enabled{name="DRANodeAllocatableResources",stage="ALPHA"} 1`) {
		t.Error("the feature gate is not on")
	}
	namespaces := second.namespaces(t)
	second.do(t, "down")
	second.noTrace(t, namespaces)
	stepNode(t, c)
}

// stepUnknownGate gives the components what they cannot start with.
func stepUnknownGate(t *testing.T, c *tool) {
	wrong := newTool(t, c.program, "wrong")
	start := time.Now()
	out, err := wrong.try("up", "--feature-gates", "Nonsense=true")
	if err == nil || !strings.Contains(out, "kube-apiserver ends right after each start") || !strings.Contains(out, "unrecognized feature gate: Nonsense") {
		t.Errorf("an up with an unknown feature gate: %v\n%s", err, out)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v to say so", took)
	}
}

func stepFaults(t *testing.T, c *tool) {
	c.do(t, "kill", config.Containerd)
	c.eventually(t, "containerd             stopped", "status")
	// Containers live on without containerd, and are found again.
	c.do(t, "start", config.Containerd)
	c.eventually(t, "still here", "kubectl", "exec", "sleep", "--", "/probe", "say", "still", "here")
	c.do(t, "restart", config.APIServer)
	c.eventually(t, " Ready ", "kubectl", "get", "nodes", "--no-headers")
	if out, err := c.try("stop", "kube-proxy"); err == nil || !strings.Contains(out, "no component") {
		t.Errorf("stopping what is not there: %v\n%s", err, out)
	}
}

func stepDisconnect(t *testing.T, c *tool) {
	api := "https://" + config.KubernetesService().String()
	ask := []string{"kubectl", "--kubeconfig", c.state.Path("etc", "kubelet.kubeconfig"), "--server", api, "--request-timeout=3s", "get", "--raw", "/version"}
	c.eventually(t, "v1.37.1", "node", ask...)
	c.do(t, "disconnect")
	if out, err := c.try("node", ask...); err == nil {
		t.Errorf("the node still reaches the API server:\n%s", out)
	}
	if out := c.do(t, "node", "ctr", "--namespace", "k8s.io", "containers", "list"); !strings.Contains(out, "localhost/probe:1") {
		t.Errorf("no container is left while disconnected:\n%s", out)
	}
	c.do(t, "connect")
	c.eventually(t, "v1.37.1", "node", ask...)
	c.eventually(t, "back", "kubectl", "exec", "sleep", "--", "/probe", "say", "back")
}

func stepReboot(t *testing.T, c *tool) {
	c.apply(t, strings.Replace(pod("always", "sleep", false), "Never", "Always", 1))
	c.eventually(t, "sleeping", "kubectl", "logs", "always")
	machine, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	jsonpath := []string{"get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}"}
	before := c.do(t, "kubectl", jsonpath...)
	c.do(t, "reboot")
	after := c.do(t, "kubectl", jsonpath...)
	if before == after || after == strings.TrimSpace(string(machine)) {
		t.Errorf("boot id %s before, %s after, the machine's is %s", before, after, machine)
	}
	c.eventually(t, "again", "kubectl", "exec", "always", "--", "/probe", "say", "again")
}

// stepHalfDead ends half of the cluster; the next up makes a whole one.
func stepHalfDead(t *testing.T, c *tool) {
	kill9(t, c.init(t, config.ControlPlane))
	out := c.do(t, "up")
	if !strings.Contains(out, "Removing the rest of an old cluster") {
		t.Errorf("up does not say that it removed the rest:\n%s", out)
	}
	c.do(t, "load-image", probeArchive(t))
	c.apply(t, pod("sleep", "sleep", false))
	c.eventually(t, "sleeping", "kubectl", "logs", "sleep")
}

// stepNoTrace ends the node as badly as possible and looks for what is left
// after down.
func stepNoTrace(t *testing.T, c *tool) {
	namespaces := c.namespaces(t)
	if len(namespaces) < 8 {
		t.Fatalf("the cluster has only the namespaces %v", namespaces)
	}
	kill9(t, c.init(t, config.Node))
	c.do(t, "down")
	c.noTrace(t, namespaces)
	if out := c.do(t, "down"); !strings.Contains(out, "There is no cluster first") {
		t.Errorf("a down of nothing does not say that there was nothing:\n%s", out)
	}
	if out, err := c.try("status"); err == nil || !strings.Contains(out, "the cluster first is not running") || !strings.Contains(out, "up --name first") {
		t.Errorf("the status of nothing: %v\n%s", err, out)
	}
}
