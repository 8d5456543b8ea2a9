package deviceplugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

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

// What another instance has given back it may have offered to claims in between.
func TestADeviceThatWasGivenBackSettlesAnew(t *testing.T) {
	for name, other := range map[string]bool{"taken here": false, "taken by the other instance": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.offer()
			p := n.open("gpu", gpus(0), func(o *Options) { o.Settle = time.Hour })
			t.Cleanup(func() { _ = p.store.Close() })
			p.acquire(t.Context(), n.published)
			p.clearSince[device.PCIThing(address(0))] = time.Now().Add(-2 * time.Hour)
			if other {
				before := n.open("gpu", gpus(0), nil)
				t.Cleanup(func() { _ = before.store.Close() })
				look(n, before)
				p.step(t.Context())
			} else {
				p.acquire(t.Context(), n.published)
			}
			if n.holder(0) == "" {
				t.Fatal("gpu-0 was not taken")
			}
			next := n.open("gpu", gpus(0), forClaims)
			t.Cleanup(func() { _ = next.store.Close() })
			next.step(t.Context())
			if who := n.holder(0); who != "" {
				t.Fatalf("gpu-0 is still held by %s", who)
			}
			look(n, p)
			if who := n.holder(0); who != "" {
				t.Errorf("gpu-0 was taken at once by %s, though the other instance may have offered it", who)
			}
		})
	}
}

// Whatever keeps devices from being taken, the API server is asked in peace.
func TestTheAPIServerIsNotAskedInAHurry(t *testing.T) {
	for name, published := range map[string]func(count int64) (map[string]bool, error){
		"devices stay in a slice": func(int64) (map[string]bool, error) {
			return map[string]bool{device.PCIThing(address(0)): true, device.PCIThing(address(1)): true}, nil
		},
		"its errors differ": func(count int64) (map[string]bool, error) {
			return nil, fmt.Errorf("read tcp 127.0.0.1:%d->127.0.0.1:443: connection reset by peer", 32768+count)
		},
		"devices settle for long": func(int64) (map[string]bool, error) { return map[string]bool{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log)))))
				// Without a resource it listens to nobody: a clock does not pass
				// while someone waits for a socket.
				p := n.open("gpu", gpus(0, 1), func(o *Options) { o.Interval, o.Settle, o.Resources = lookEvery, time.Hour, nil })
				var count atomic.Int64
				done := make(chan error, 1)
				go func() {
					done <- p.Run(ctx, func(context.Context) (map[string]bool, error) { return published(count.Add(1)) })
				}()
				<-time.After(10 * time.Minute)
				p.Found(ctx, "gpu", gpus(0, 1), nil)
				synctest.Wait()
				if got := count.Load(); got < 55 || got > 70 {
					t.Errorf("the API server was asked %d times in 10 minutes", got)
				}
				p.stepping.Lock()
				if p.steps > 130 {
					t.Errorf("%d steps in 10 minutes", p.steps)
				}
				p.stepping.Unlock()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if lines := strings.Count(log.String(), "\n"); lines > 4 {
					t.Errorf("%d lines of log:\n%s", lines, &log)
				}
			})
		})
	}
}

// A device is taken as soon as it has settled, not a pause later.
func TestASettledDeviceIsTakenInTime(t *testing.T) {
	n := newNode(t)
	n.offer()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := n.open("gpu", gpus(0), func(o *Options) { o.Interval, o.Settle, o.Resources = lookEvery, 30*time.Second, nil })
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx, n.published) }()
		<-time.After(30*time.Second + time.Millisecond)
		synctest.Wait()
		if n.holder(0) == "" {
			t.Error("gpu-0 is not taken after 30 s")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
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
