package e2e

import (
	"context"
	"slices"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// The plugin is killed, not replaced, and a GPU falls off the bus, while pods have
// GPUs as extended resources.
func TestPodsWithExtendedResourcesOutliveThePluginAndAGPU(t *testing.T) {
	s := newSpace(t, nil)
	s.needDevicePlugin()
	addresses := gpuAddresses(t)
	books := s.openBooks()
	s.configure(servesGPUs)
	t.Cleanup(s.endPods)
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	stays, crashes := s.runWithGPU("stays"), s.runWithGPU("crashes")
	used := books.enter(stays, 1)
	had := books.enter(crashes, 1)

	killed := s.killPlugin()
	crashes = s.killContainer("crashes", "work") // also while there is no plugin
	if got := books.enter(crashes, 1); !slices.Equal(got, had) {
		t.Errorf("the container that was started again has GPU %v, want %v as before", got, had)
	}
	s.waitPluginRuns(killed)
	s.waitDriver()
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	used = append(append(used, had...), books.enter(s.runWithGPU("comes"), 1)...)
	wantDistinct(t, used)

	back := s.unplug(addresses[had[0]])
	s.waitAllocatable(gpuResource, gpusPerNode-1, gpusPerNode-1)
	left := gpusPerNode - 1 - len(used) // the scheduler counts the one that is lost as used, too
	s.create(resourcePod("rest", int64(left)))
	used = append(used, books.enter(s.wait("rest", harness.Running()), left)...)
	wantDistinct(t, used)
	back()
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	wantUndisturbed(t, stays, s.wait("stays", harness.Running()))
	wantUndisturbed(t, crashes, s.wait("crashes", harness.Running()))
	books.check()
}

// unplug takes a GPU off the simulated machine's PCI bus, until back is called or
// the test ends.
func (s *space) unplug(address string) (back func()) {
	s.t.Helper()
	there, away := simulatedDir+"/sys/bus/pci/devices/"+address, simulatedDir+"/unplugged-"+address
	move := func(from, to string) {
		s.t.Helper()
		if _, err := cluster.OnNode(context.WithoutCancel(s.ctx), "mv", from, to); err != nil {
			s.t.Error(err)
		}
	}
	out := true
	back = func() {
		s.t.Helper()
		if out {
			out = false
			move(away, there)
		}
	}
	s.t.Cleanup(back)
	move(there, away)
	return back
}

// gpuAddresses returns the PCI addresses of the published GPUs, by their UUIDs.
func gpuAddresses(t *testing.T) map[string]string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	for _, d := range devices {
		addresses[value(d.Attributes["uuid"])] = value(d.Attributes["resource.kubernetes.io/pciBusID"])
	}
	return addresses
}
