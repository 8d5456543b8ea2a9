package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Kubelet and the container runtime bring devices into containers by themselves,
// without CDI. The libraries of GPUs are found by NVIDIA's runtime, which is not
// here.
func (s *space) withoutCDI(configure func(section string), node map[string]string) {
	s.t.Helper()
	configure(fmt.Sprintf("devicePlugin: {kinds: [gpu, vf], mode: envvar, settle: 1s, vfResources: [{name: %s}]}", vfResource))
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	s.waitAllocatable(vfResource, vfsPerNode, vfsPerNode)

	s.create(resourcePod("gpus", 2))
	s.create(vfResourcePod("vf", 1))
	s.wait("gpus", harness.Running())
	want := []string{"nvidiactl"}
	for _, uuid := range strings.Split(s.environment("gpus", "NVIDIA_VISIBLE_DEVICES")["NVIDIA_VISIBLE_DEVICES"], ",") {
		want = append(want, node[uuid])
	}
	var got []string
	for _, name := range strings.Fields(s.exec("gpus", "ls", "/dev")) {
		if number, ok := strings.CutPrefix(name, "nvidia"); ok && strings.Trim(number, "0123456789") == "" || name == "nvidiactl" {
			got = append(got, name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) != 3 || !slices.Equal(got, want) {
		s.t.Errorf("the container has the device nodes %v, and by its environment those should be %v, two GPUs", got, want)
	}

	s.wait("vf", harness.Running())
	address := s.environment("vf", "PCIDEVICE_")["PCIDEVICE_NVIDIA_COM_VF"]
	if !strings.HasPrefix(address, "0000:") {
		s.t.Errorf("the VF's container is told the address %q", address)
	}
	if verbs := strings.Fields(s.exec("vf", "ls", "/dev/infiniband")); !slices.ContainsFunc(verbs, func(name string) bool { return strings.HasPrefix(name, "uverbs") }) {
		s.t.Errorf("the VF's container has %v in /dev/infiniband, want its RDMA device", verbs)
	}
}

// deviceNodes returns the names of the GPUs' device nodes, by their UUIDs.
func deviceNodes(t *testing.T) map[string]string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]string{}
	for _, d := range devices {
		nodes[value(d.Attributes["uuid"])] = "nvidia" + value(d.Attributes["index"])
	}
	return nodes
}
