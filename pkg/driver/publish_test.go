package driver

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// layout returns the names of the devices of each slice.
func layout(devices []owned, tainting bool) [][]string {
	all := [][]string{}
	for _, s := range resources(testPool, pool{devices: single(devices)}, features{taints: tainting, counters: true}).Pools[testPool].Slices {
		names := []string{}
		for _, d := range s.Devices {
			names = append(names, d.Name)
		}
		all = append(all, names)
	}
	return all
}

// single gives devices a family: those without one are composites.
func single(devices []owned) []owned {
	for n := range devices {
		devices[n].family = newFakeGPUs()
	}
	return devices
}

// The API server refuses a whole slice of more than 64 devices as soon as one of
// them has a taint.
func TestATaintMovesNoDevice(t *testing.T) {
	for _, machine := range []struct{ gpus, vfs, slices int }{
		{0, 0, 0}, {8, 0, 1}, {8, 56, 1}, {8, 64, 2}, {0, 8 * 16, 2}, {8, 8 * 16, 3},
	} {
		t.Run(fmt.Sprintf("%d GPUs and %d VFs", machine.gpus, machine.vfs), func(t *testing.T) {
			var devices []owned
			for i := range machine.gpus {
				devices = append(devices, owned{Device: device.Device{Name: fmt.Sprintf("gpu-%d", i)}})
			}
			for i := range machine.vfs {
				devices = append(devices, owned{Device: device.Device{Name: fmt.Sprintf("vf-%03d", i)}})
			}
			healthy := layout(devices, true)
			if len(healthy) != machine.slices {
				t.Fatalf("%d slices, want %d", len(healthy), machine.slices)
			}
			n := 0
			for _, names := range healthy {
				if len(names) > 64 {
					t.Errorf("%d devices in a slice", len(names))
				}
				for _, name := range names {
					if name != devices[n].Name {
						t.Fatalf("%s in the place of %s", name, devices[n].Name)
					}
					n++
				}
			}
			for i := range devices {
				devices[i].problems = []problem{{Problem: device.Problem{Reason: "LinkDown"}}}
				if diff := cmp.Diff(healthy, layout(devices, true)); diff != "" {
					t.Fatalf("with %d tainted devices:\n%s", i+1, diff)
				}
			}
		})
	}
}

// Where taints are dropped, a device that is left out moves no other.
func TestADeviceThatIsLeftOutMovesNoOther(t *testing.T) {
	var devices []owned
	for i := range 70 {
		devices = append(devices, owned{Device: device.Device{Name: fmt.Sprintf("vf-%03d", i)}})
	}
	healthy := layout(devices, false)
	devices[3].problems = []problem{{Problem: device.Problem{Reason: "LinkDown"}}}
	got := layout(devices, false)
	healthy[0] = append(healthy[0][:3:3], healthy[0][4:]...)
	if diff := cmp.Diff(healthy, got); diff != "" {
		t.Error(diff)
	}
}

func TestTaints(t *testing.T) {
	metrics := newMetrics(t)
	gpus := newFakeGPUs("gpu-0", "gpu-1")
	gpus.set("gpu-0", device.Problem{Reason: "LinkDown", Message: "no carrier"})
	inv, err := newInventory([]Family{gpus}, metrics)
	if err != nil {
		t.Fatal(err)
	}
	look := func() []resourceapi.Device {
		t.Helper()
		if err := inv.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return resources(testPool, inv.pool(), features{taints: true, counters: true}).Pools[testPool].Slices[0].Devices
	}
	before := time.Now().Truncate(time.Second)
	got := look()
	linkDown := resourceapi.DeviceTaint{Key: v1alpha1.TaintUnhealthy, Value: "LinkDown", Effect: resourceapi.DeviceTaintEffectNoSchedule}
	if diff := cmp.Diff([]resourceapi.DeviceTaint{linkDown}, got[0].Taints); diff != "" {
		t.Errorf("a problem from before the start has no time of ours:\n%s", diff)
	}

	gpus.set("gpu-0",
		device.Problem{Reason: "ZeroGUID", Message: "port 1"}, device.Problem{Reason: "LinkDown", Message: "still no carrier"},
		device.Problem{Reason: "ZeroGUID", Message: "port 2"})
	got = look()
	first := got[0].Taints
	if len(first) != 2 || first[0].Value != "LinkDown" || first[0].TimeAdded != nil || first[1].Value != "ZeroGUID" ||
		first[1].TimeAdded == nil || first[1].TimeAdded.Time.Before(before) || len(got[1].Taints) != 0 {
		t.Fatalf("want one taint for each reason, with the time of the new one: %v, %v", first, got[1].Taints)
	}
	if d, _ := inv.device("gpu-0"); d.complaint() != "LinkDown: still no carrier; ZeroGUID: port 1; port 2" {
		t.Errorf("complaint %q", d.complaint())
	}

	gpus.set("gpu-0", device.Problem{Reason: "ZeroGUID", Message: "both ports"})
	if diff := cmp.Diff(first[1:], look()[0].Taints); diff != "" {
		t.Errorf("a problem that goes on keeps its time, one that is gone its taint not:\n%s", diff)
	}
	gpus.set("gpu-0")
	if got := look(); len(got[0].Taints) != 0 {
		t.Errorf("a healthy device has %v", got[0].Taints)
	}
}
