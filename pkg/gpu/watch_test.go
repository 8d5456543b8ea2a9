package gpu

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
)

// watch runs Watch in a bubble of fake time, and returns a function that lets
// time pass and tells how often changed was called since the last time.
func watch(t *testing.T, f *Family) func(time.Duration) int {
	var calls atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Watch(ctx, func() { calls.Add(1) })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func(d time.Duration) int {
		time.Sleep(d)
		synctest.Wait()
		return int(calls.Swap(0))
	}
}

func TestWatchFindsTheDriver(t *testing.T) {
	m := newMachine(t, simulated.DGXH200)
	synctest.Test(t, func(t *testing.T) {
		f := New(m.opts)
		var missing *DriverError
		if _, err := f.Devices(t.Context()); !errors.As(err, &missing) || missing.Reason != ReasonDriverMissing {
			t.Fatalf("got %v", err)
		}
		after := watch(t, f)
		if n := after(time.Hour); n != 0 {
			t.Errorf("called %d times while the driver was missing as before", n)
		}
		m.installDriver()
		if n := after(10 * time.Second); n != 1 {
			t.Errorf("called %d times after the driver appeared, want once", n)
		}
		if n := len(devices(t, f).Devices); n != 8 {
			t.Errorf("got %d devices, want 8", n)
		}
	})
}

func TestWatchFindsFailures(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	synctest.Test(t, func(t *testing.T) {
		f := New(m.opts)
		devices(t, f)
		after := watch(t, f)
		if n := after(time.Hour); n != 0 {
			t.Errorf("called %d times while nothing changed", n)
		}
		m.FailGPU(5, nvml.ERROR_GPU_IS_LOST)
		if n := after(6 * time.Minute); n != 1 {
			t.Errorf("called %d times after a GPU failed, want once", n)
		}
		if n := after(time.Hour); n != 0 {
			t.Errorf("called %d times for the same news", n)
		}
		if n := len(devices(t, f).Faults); n != 1 {
			t.Errorf("got %d faults, want 1", n)
		}
		m.FailGPU(5, nvml.SUCCESS)
		if n := after(6 * time.Minute); n != 1 {
			t.Errorf("called %d times after the GPU came back, want once", n)
		}
	})
}

// A GPU that leaves the PCI bus is missed at once, not at the next look at all.
func TestWatchFindsGPUsThatLeaveTheBus(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	synctest.Test(t, func(t *testing.T) {
		f := New(m.opts)
		devices(t, f)
		after := watch(t, f)
		back := m.unplug("0000:61:00.0")
		if n := after(10 * time.Second); n != 1 {
			t.Errorf("called %d times after a GPU left, want once", n)
		}
		if found := devices(t, f); len(found.Devices) != 7 || len(found.Faults) != 1 {
			t.Errorf("got %d devices and %d faults, want 7 and 1", len(found.Devices), len(found.Faults))
		}
		if n := after(2 * time.Minute); n != 0 {
			t.Errorf("called %d times for the same news", n)
		}
		back()
		if n := after(10 * time.Second); n != 1 {
			t.Errorf("called %d times after the GPU came back, want once", n)
		}
		if n := len(devices(t, f).Devices); n != 8 {
			t.Errorf("got %d devices, want 8", n)
		}
	})
}

// What Prepare notices is published without waiting for the next look.
func TestWatchHearsOfPrepare(t *testing.T) {
	m := newMachineWithDriver(t, simulated.DGXH200)
	synctest.Test(t, func(t *testing.T) {
		f := New(m.opts)
		devices(t, f)
		after := watch(t, f)
		m.unplug("0000:61:00.0")
		m.FailGPU(3, nvml.ERROR_GPU_IS_LOST)
		if _, err := f.Prepare(t.Context(), grant("gpu-3", "0000:61:00.0")); err == nil {
			t.Error("a GPU that has gone was prepared")
		}
		if n := after(0); n != 1 {
			t.Errorf("called %d times, want once", n)
		}
	})
}
