package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func TestADeviceSettlesBeforeItIsTaken(t *testing.T) {
	n := newNode(t)
	n.offer(device.PCIThing(address(0)))
	n.start(gpus(0, 1), func(o *Options) { o.Settle = 50 * time.Millisecond })
	n.wantHealth(map[string]string{"GPU-0": "Unhealthy", "GPU-1": "Healthy"})
	if holder := n.claim("late", 0); holder != nil {
		t.Errorf("a claim that was allocated in time does not get its device: %s has it", holder.Holder())
	}
	n.unclaim("late", 0)
	n.offer()
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
}

// A plugin that starts may have been ended a moment after it took devices from the
// slices, so that it finds none of them there.
func TestDevicesSettleAfterAStart(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	n.offer() // nothing, by now
	after := n.start(gpus(0, 1), func(o *Options) { o.Settle = time.Hour })
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy"})
	eventually(t, "known why", func() error {
		after.mu.Lock()
		defer after.mu.Unlock()
		if reason := after.states["GPU-1"].problem; !strings.Contains(reason, "claims may have been offered it a moment ago: it is served from 20") || !strings.Contains(reason, "after 1h0m0s (devicePlugin.settle)") {
			return fmt.Errorf("the reason is %q", reason)
		}
		return nil
	})
	if holder := n.claim("late", 1); holder != nil {
		t.Errorf("a claim that was allocated in time does not get its device: %s has it", holder.Holder())
	}
}

// While a node is cut off, claims are allocated what its slices offer.
func TestDevicesSettleAfterTheNodeWasCutOff(t *testing.T) {
	n := newNode(t)
	n.offer()
	p := n.open("gpu", gpus(0), func(o *Options) { o.Settle = 1 })
	t.Cleanup(func() { _ = p.store.Close() })
	p.acquire(t.Context(), func(context.Context) (map[string]bool, error) {
		return nil, errors.New("no answer")
	})
	p.acquire(t.Context(), n.published)
	if who := n.holder(0); who != "" {
		t.Fatalf("gpu-0 was taken by %s at the first answer", who)
	}
	eventually(t, "taken", func() error {
		p.acquire(t.Context(), n.published)
		if n.holder(0) == "" {
			return errors.New("it is free")
		}
		return nil
	})
}

// Before Kubernetes 1.34 claims were never offered anything.
func TestNothingSettlesWithoutResourceSlices(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0), func(o *Options) { o.Settle = time.Hour })
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
}

// The API server of a node that is cut off does not answer for a while.
func TestKubeletDoesNotWaitForTheAPIServer(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	before.stop()
	n.beSilent()
	p := n.start(gpus(0, 1, 2), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy", "GPU-2": "Unhealthy"})
	if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
		t.Error(err)
	}
	sick := gpus(0, 1, 2)
	sick.Devices[1].Problems = []device.Problem{{Reason: "XID", Message: "it fell off the bus"}}
	p.Found(t.Context(), "gpu", sick, nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy", "GPU-2": "Unhealthy"})
}

// Two who prepare a device at the same time may end in either order.
func TestTheLastPreparationCounts(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	slow, fast := make(chan struct{}), make(chan struct{})
	n.gpus.hold(func() { close(fast); <-slow })
	done := make(chan error, 1)
	i := p.items()[0]
	go func() { done <- p.prepare(t.Context(), i) }()
	<-fast
	n.gpus.hold(nil)
	n.gpus.spoil("gpu-0", errors.New("gone"))
	if err := p.prepare(t.Context(), i); err == nil {
		t.Fatal("no error")
	}
	n.gpus.spoil("gpu-0", nil)
	close(slow)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := p.prepared["GPU-0"].err; err == nil {
		t.Error("an answer replaces that to a later question")
	}
}
