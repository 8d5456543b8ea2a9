package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestWhereThereIsNoH200TheExampleThatPrefersItTakesAnH100(t *testing.T) {
	s := newSpace(t, nil)
	s.become("test/e2e/testdata/simulated-dgx-h100")
	s.waitProducts("NVIDIA H100", gpusPerNode)
	if err := cluster.Apply(s.ctx, s.name, "examples/prefer-h200.yaml"); err != nil {
		t.Fatal(err)
	}
	s.wait("prefer-h200", harness.Succeeded())
	if text := s.logs("prefer-h200", "cuda"); len(harness.GPUs(text)) != 1 || !strings.Contains(text, "NVIDIA H100") {
		t.Errorf("the pod did not get one H100; it printed:\n%s", text)
	}
	s.delete("prefer-h200")
	s.waitGone("prefer-h200")
}

func TestOnANodeWithoutGPUsThePluginRunsPublishesNothingAndSaysWhy(t *testing.T) {
	s := newSpace(t, nil)
	_, err := cluster.OnNode(s.ctx, "true")
	needNode(t, err)
	// grep fails where it finds none.
	if found, err := cluster.OnNode(s.ctx, "sh", "-c", "grep -l 0x10de /sys/bus/pci/devices/*/vendor"); err == nil {
		t.Skipf("this machine has devices of NVIDIA: %s", strings.TrimSpace(found))
	}
	s.become("deployments/manifests")
	// The DRA library takes half a minute before it deletes a slice that it did
	// not make itself.
	s.eventually("the driver publishes nothing", func(ctx context.Context) (bool, error) {
		slices, err := cluster.Slices(ctx)
		return len(slices) == 0, err
	})
	pod, err := cluster.PluginPod(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("the plugin's log says that there is no GPU", func(ctx context.Context) (bool, error) {
		text, err := cluster.Logs(ctx, pod.Namespace, pod.Name, harness.PluginContainer)
		return strings.Contains(text, "this machine has no NVIDIA GPU"), err
	})
	if got := strings.TrimSpace(pluginSays(t, "/healthz")); got != "ok" {
		t.Errorf("/healthz answers %q, want ok", got)
	}
	s.template("one", gpus(1))
	s.pod("waits", "one")
	s.wait("waits", harness.Unschedulable())
	s.delete("waits")
	s.waitGone("waits")
}

// become has the node play another machine until the test ends.
func (s *space) become(kustomization string) {
	s.t.Helper()
	apply := func(kustomization string) func() {
		return func() {
			if err := cluster.ApplyKustomization(context.WithoutCancel(s.ctx), kustomization); err != nil {
				s.t.Error(err)
			}
		}
	}
	s.t.Cleanup(func() {
		s.roll(apply(simulated))
		s.waitProducts("NVIDIA H200", gpusPerNode)
	})
	s.roll(apply(kustomization))
}

// waitProducts returns when the node's GPUs are of the product, all of them.
func (s *space) waitProducts(product string, count int) {
	s.t.Helper()
	s.eventually("the driver publishes "+product, func(ctx context.Context) (bool, error) {
		devices, err := cluster.Devices(ctx)
		for _, device := range devices {
			if !strings.HasPrefix(value(device.Attributes["productName"]), product) {
				return false, err
			}
		}
		return len(devices) == count, err
	})
}

// eventually waits until something is so.
func (s *space) eventually(what string, is func(ctx context.Context) (bool, error)) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.ctx, 200*time.Millisecond, patience, true, is)
	if err != nil {
		s.t.Fatalf("waiting until %s: %v", what, err)
	}
}
