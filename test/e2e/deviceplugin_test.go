package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestGPUsAsExtendedResources(t *testing.T) {
	s := newSpace(t, nil)
	s.needDevicePlugin()
	all := allUUIDs(t)
	books := s.openBooks()
	s.template("one", gpus(1))
	s.pod("claims", "one")
	claimed := books.enter(s.wait("claims", harness.Running()), 1)
	numaNodes := numaNodes(t)

	s.configure(servesGPUs)
	t.Cleanup(s.endPods)
	s.waitAllocatable(gpuResource, gpusPerNode-1, gpusPerNode)
	s.waitPublished(nil)
	s.wantMetric(`eks_hybrid_dra_device_plugin_devices{resource="nvidia.com/gpu",state="waiting"} 1`)
	if err := cluster.Apply(s.ctx, s.name, "examples/device-plugin-gpu.yaml"); err != nil {
		t.Fatal(err)
	}
	s.wait("device-plugin-gpu", harness.Succeeded())
	if seen := s.gpus("device-plugin-gpu", "cuda", 1); slices.Equal(seen, claimed) {
		t.Errorf("the pod was given GPU %s, which a claim has", seen)
	}
	s.wantTheOtherNUMANode(books, numaNodes, claimed[0])

	var pods []*corev1.Pod
	var used []string
	for n := range gpusPerNode - 1 {
		pods = append(pods, s.runWithGPU(fmt.Sprint("user-", n)))
		used = append(used, books.enter(pods[n], 1)...)
	}
	s.create(resourcePod("eighth", 1))
	s.wait("eighth", harness.Unschedulable())
	s.delete("claims")
	pods = append(pods, s.wait("eighth", harness.Running()))
	used = append(used, books.enter(pods[len(pods)-1], 1)...)
	s.create(resourcePod("ninth", 1))
	s.wait("ninth", harness.Unschedulable())
	wantDistinct(t, used)
	if slices.Sort(used); !slices.Equal(used, slices.Sorted(slices.Values(all))) {
		t.Errorf("pods see the GPUs %v, the node has %v", used, all)
	}

	for _, pod := range pods {
		wantUndisturbed(t, pod, s.wait(pod.Name, harness.Running()))
	}
	s.restart(harness.Kubelet)
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	s.rollPlugin()
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	for _, pod := range pods {
		wantUndisturbed(t, pod, s.wait(pod.Name, harness.Running()))
	}
	s.delete("user-3")
	books.enter(s.wait("ninth", harness.Running()), 1)
	s.endPods()
	s.create(resourcePod("machine", gpusPerNode))
	if machine := books.enter(s.wait("machine", harness.Running()), gpusPerNode); !slices.Equal(slices.Sorted(slices.Values(machine)), slices.Sorted(slices.Values(all))) {
		t.Errorf("the pod with the whole machine has the GPUs %v, want %v", machine, all)
	}
	books.check()
}

// A node goes to claims and back while pods run on it.
func TestANodeChangesSidesWhilePodsRun(t *testing.T) {
	s := newSpace(t, nil)
	s.needDevicePlugin()
	all := allUUIDs(t)
	byClaim := s.extendedClass()
	others := func(than ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(uuid string) bool { return slices.Contains(than, uuid) })
	}
	books := s.openBooks()
	configure := s.configurable()
	t.Cleanup(s.endPods)

	configure(servesGPUs)
	s.waitAllocatable(gpuResource, gpusPerNode, gpusPerNode)
	stays, goes := s.runWithGPU("stays"), s.runWithGPU("goes")
	first, second := books.enter(stays, 1), books.enter(goes, 1)

	configure(nothingMore)
	s.waitPublished(others(first[0], second[0]))
	s.waitAllocatable(gpuResource, 0, 0)
	if byClaim {
		s.wantExampleByClaim()
		s.delete("device-plugin-gpu")
	}
	// All that is free goes to claims, and nothing else.
	s.template("six", gpus(gpusPerNode-2))
	s.template("one", gpus(1))
	s.pod("claims", "six")
	six := s.wait("claims", harness.Running())
	books.enter(six, gpusPerNode-2)
	s.pod("claims-more", "one")
	s.wait("claims-more", harness.Unschedulable())
	s.delete("goes")
	more := s.wait("claims-more", harness.Running())
	if got := books.enter(more, 1); !slices.Equal(got, second) {
		t.Errorf("the claim has GPU %v, want the one that is free by now, %v", got, second)
	}
	s.restart(harness.Kubelet)
	s.waitPublished(others(first[0]))

	configure(servesGPUs)
	s.waitAllocatable(gpuResource, 1, gpusPerNode) // that of the pod that has stayed
	s.waitPublished(nil)
	s.delete("claims")
	s.waitAllocatable(gpuResource, gpusPerNode-1, gpusPerNode)
	var pods []*corev1.Pod
	for n := range gpusPerNode - 2 {
		pod := s.runWithGPU(fmt.Sprint("again-", n))
		books.enter(pod, 1)
		pods = append(pods, pod)
	}
	for _, pod := range append(pods, stays, goes) {
		if pod.Status.ExtendedResourceClaimStatus != nil {
			t.Errorf("pod %s has a claim for its GPU, though the node had GPUs to give without", pod.Name)
		}
	}
	for _, pod := range append(pods, stays, more) {
		wantUndisturbed(t, pod, s.wait(pod.Name, harness.Running()))
	}
	books.check()

	configure(nothingMore)
	s.endPods()
	s.waitPublished(all)
	s.waitNoDevicePluginFiles()
}

// The same manifests, on a node whose GPUs are for claims.
func TestExtendedResourcesThroughClaims(t *testing.T) {
	s := newSpace(t, nil)
	s.waitAllocatable(gpuResource, 0, 0)
	if !s.extendedClass() {
		t.Skip("DeviceClasses name extended resources since Kubernetes 1.36")
	}
	s.wantExampleByClaim()
}

func TestVFsAsExtendedResources(t *testing.T) {
	s := newSpace(t, nil)
	s.needDevicePlugin()
	s.admin()
	nodes := deviceNodes(t)
	configure := s.configurable()
	configure(fmt.Sprintf(`devicePlugin:
  kinds: [vf]
  settle: 1s
  vfResources:
  - {name: %s, selectors: [{linkTypes: [ether]}]}`, vfResource))
	t.Cleanup(s.endPods)
	s.waitAllocatable(vfResource, vfsPerNode, vfsPerNode)
	s.until("offered to claims no more", func() error {
		if left := len(vfDevices(t)) + len(published(t, pairType)); left > 0 {
			return fmt.Errorf("%d VFs and pairs are", left)
		}
		return nil
	})
	s.waitPublished(allUUIDs(t)) // GPUs are

	if err := cluster.Apply(s.ctx, s.name, "examples/device-plugin-vf.yaml"); err != nil {
		t.Fatal(err)
	}
	s.wait("device-plugin-vf", harness.Succeeded())
	s.wantPrinted("device-plugin-vf", "main", "PCIDEVICE_NVIDIA_COM_VF=0000:")

	s.create(vfResourcePod("two", 2))
	before := s.wait("two", harness.Running())
	addresses := strings.Split(s.environment("two", "PCIDEVICE_")["PCIDEVICE_NVIDIA_COM_VF"], ",")
	if len(addresses) != 2 || addresses[0] == addresses[1] || addresses[0][:10] == addresses[1][:10] {
		t.Fatalf("the pod has the VFs %v, want two of different ports", addresses)
	}
	info, err := cluster.OnNode(s.ctx, "cat", "/var/run/k8s.cni.cncf.io/devinfo/dp/nvidia.com-vf-"+addresses[0]+"-device.json")
	if err != nil || !strings.Contains(info, `"pci-address":"`+addresses[0]+`"`) {
		t.Errorf("the description for Multus is %s, %v", info, err)
	}

	// A cable is pulled, and put in again.
	port := s.portAt(addresses[0])
	s.exec("admin", "ip", "link", "set", port+"p", "down")
	s.waitAllocatable(vfResource, vfsPerNode-vfsPerNode/8, vfsPerNode)
	if keepsTaintsAndTellsHealth(t) {
		s.wantHealth("two", corev1.ResourceHealthStatusUnhealthy, "")
	}
	s.exec("admin", "ip", "link", "set", port+"p", "up")
	s.waitAllocatable(vfResource, vfsPerNode, vfsPerNode)
	s.withoutCDI(configure, nodes)
	wantUndisturbed(t, before, s.wait("two", harness.Running()))
}

// portAt returns the port of the VF with an address.
func (s *space) portAt(address string) string {
	s.t.Helper()
	out, err := cluster.OnNode(s.ctx, "sh", "-c", "ls "+dataDir+"/simulated/sys/bus/pci/devices/"+address+"/physfn/net")
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
