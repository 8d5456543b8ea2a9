package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// A label takes a node's GPUs and VFs from claims to the device plugin and back,
// while pods of both kinds run.
func TestALabelOfTheNodeChangesSidesWhilePodsHaveGPUsAndVFs(t *testing.T) {
	const label = "e2e.example.com/serves"
	s := newSpace(t, nil)
	s.needDevicePlugin()
	addresses, names := gpuAddresses(t), namesOfGPUs(t)
	node := s.nodeOfSlices()
	relabel := func(word string) {
		t.Helper()
		if _, err := cluster.Kubectl(context.WithoutCancel(s.ctx), "label", "--overwrite", "node", node, label+word); err != nil {
			t.Error(err)
		}
	}
	books := s.openBooks()
	s.template("gpu", gpus(1))
	s.template("vf", vfs(1, ""))
	s.pod("gpu-claim", "gpu")
	s.create(vfPod("vf-claim", "vf"))
	s.configure(fmt.Sprintf("devicePlugin: {kinds: [gpu, vf], settle: 1s, nodeSelector: {%s: extended}, vfResources: [{name: %s}]}", label, vfResource))
	t.Cleanup(s.endPods)
	t.Cleanup(func() { relabel("-") })
	gpuClaim, vfClaim := s.wait("gpu-claim", harness.Running()), s.wait("vf-claim", harness.Running())
	claimedGPU, claimedVF := books.enter(gpuClaim, 1), s.allocatedVF("vf-claim")

	relabel("=extended")
	s.waitAllocatable(gpuResource, gpusPerNode-1, gpusPerNode)
	s.waitAllocatable(vfResource, vfsPerNode-1, vfsPerNode)
	s.waitOffered(nil, 0)
	gpuPod := s.runWithGPU("gpu-pod")
	s.create(vfResourcePod("vf-pod", 2))
	vfPod := s.wait("vf-pod", harness.Running())
	usedGPU, usedVFs := books.enter(gpuPod, 1), s.vfsOf("vf-pod")
	if len(usedVFs) != 2 || slices.Contains(usedVFs, claimedVF) {
		t.Errorf("the pod has the VFs %v, a claim has %s", usedVFs, claimedVF)
	}

	relabel("-")
	free := slices.DeleteFunc(allOf(addresses), func(address string) bool { return address == addresses[usedGPU[0]] })
	s.waitOffered(free, vfsPerNode-len(usedVFs))
	for _, d := range vfDevices(t) {
		if address := value(d.Attributes["resource.kubernetes.io/pciBusID"]); slices.Contains(usedVFs, address) {
			t.Errorf("VF %s is offered to claims, and a pod has it as an extended resource", address)
		}
	}
	s.waitAllocatable(gpuResource, 0, 0)
	s.waitAllocatable(vfResource, 0, 0)
	// As by a scheduler that had not heard yet that the GPU is offered no more.
	s.allocated("late", names[usedGPU[0]])
	s.create(podWithClaim("late", "late", node))
	s.template("rest", gpus(gpusPerNode-2))
	s.pod("rest", "rest")
	rest := books.enter(s.wait("rest", harness.Running()), gpusPerNode-2)
	wantDistinct(t, append(append(rest, claimedGPU...), usedGPU...))
	wantUndisturbed(t, gpuClaim, s.wait("gpu-claim", harness.Running()))
	wantUndisturbed(t, vfClaim, s.wait("vf-claim", harness.Running()))
	wantUndisturbed(t, gpuPod, s.wait("gpu-pod", harness.Running()))
	wantUndisturbed(t, vfPod, s.wait("vf-pod", harness.Running()))
	s.waitEvent("late", `is held by pod `+s.name+"/gpu-pod")
	s.delete("gpu-pod")
	s.delete("vf-pod")
	s.waitOffered(allOf(addresses), vfsPerNode)
	if late := books.enter(s.wait("late", harness.Running()), 1); !slices.Equal(late, usedGPU) {
		t.Errorf("the pod that waited has GPU %v, its claim was allocated %v", late, usedGPU)
	}
	books.check()
}

// allocated makes a claim that has a GPU by its status, whoever else has it.
func (s *space) allocated(name, device string) {
	s.t.Helper()
	claims := cluster.Client.ResourceV1().ResourceClaims(s.name)
	claim, err := claims.Create(s.ctx, &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: gpus(1)}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	claim.Status.Allocation = &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{
		Request: claim.Spec.Devices.Requests[0].Name, Driver: harness.DriverName, Pool: s.nodeOfSlices() + "/" + harness.DriverName, Device: device,
	}}}}
	if _, err := claims.UpdateStatus(s.ctx, claim, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// podWithClaim returns a pod that uses a claim that is there, on a node, whatever the
// scheduler thinks.
func podWithClaim(name, claim, node string) *corev1.Pod {
	pod := newPod(name, "")
	pod.Spec.NodeName = node
	pod.Spec.ResourceClaims[0].ResourceClaimTemplateName, pod.Spec.ResourceClaims[0].ResourceClaimName = nil, &claim
	return pod
}

// waitEvent returns when the pod has an event with the text.
func (s *space) waitEvent(pod, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := cluster.WaitEvent(ctx, s.name, pod, text); err != nil {
		s.t.Fatal(err)
	}
}

// namesOfGPUs returns the names of the published GPUs, by their UUIDs.
func namesOfGPUs(t *testing.T) map[string]string {
	t.Helper()
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, d := range devices {
		names[value(d.Attributes["uuid"])] = d.Name
	}
	return names
}

// vfsOf returns the PCI addresses of the VFs that a pod has as an extended
// resource.
func (s *space) vfsOf(pod string) []string {
	s.t.Helper()
	return strings.Split(s.environment(pod, "PCIDEVICE_")["PCIDEVICE_NVIDIA_COM_VF"], ",")
}

// allOf returns the addresses, sorted.
func allOf(addresses map[string]string) []string {
	var all []string
	for _, address := range addresses {
		all = append(all, address)
	}
	slices.Sort(all)
	return all
}

// waitOffered waits until just these GPUs, by their addresses, and so many VFs are
// offered to claims.
func (s *space) waitOffered(gpus []string, vfs int) {
	s.t.Helper()
	s.until("offered to claims", func() error {
		devices, err := cluster.Devices(s.ctx)
		if err != nil {
			return err
		}
		var offered []string
		for _, d := range devices {
			offered = append(offered, value(d.Attributes["resource.kubernetes.io/pciBusID"]))
		}
		slices.Sort(offered)
		if n := len(vfDevices(s.t)); !slices.Equal(offered, gpus) || n != vfs {
			return fmt.Errorf("%d VFs and the GPUs %v are offered to claims, want %d and %v", n, offered, vfs, gpus)
		}
		return nil
	})
}
