package guest

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// beside is what the machine's own sysfs says of a GPU and a VF.
type beside struct {
	// nic is the address of the VF's PF.
	nic string
	// bridge is the lowest bridge, or the host bridge, that both are below.
	bridge string
	// gpuNode and vfNode are the NUMA nodes.
	gpuNode, vfNode string
}

// places are the PCI functions that stand in for GPUs, and what is to be
// beside them: two below one switch with two NICs, and one in a root port of
// its own.
func places() map[string]beside {
	return map[string]beside{
		"0000:45:00.0": {"0000:43:00.0", "0000:41:00.0", "0", "0"},
		"0000:46:00.0": {"0000:44:00.0", "0000:41:00.0", "0", "0"},
		"0000:82:00.0": {"0000:81:00.0", "pci0000:80", "1", "1"},
	}
}

// relations are those that nvidia-smi topo -m has words for.
func relations() map[string]string {
	return map[string]string{"0000:41:00.0": "PIX", "pci0000:80": "PHB"}
}

// look asks the guest where a GPU and a VF are.
func (s *space) look(gpu, vf string) beside {
	s.t.Helper()
	at := func(address, file string) string { return path.Join("/sys/bus/pci/devices", address, file) }
	gpuPath, vfPath := s.guest("readlink", "-f", at(gpu, "")), s.guest("readlink", "-f", at(vf, ""))
	var bridge string
	for above := path.Dir(gpuPath); bridge == ""; above = path.Dir(above) {
		if strings.HasPrefix(vfPath, above+"/") {
			bridge = path.Base(above)
		}
	}
	return beside{
		nic: path.Base(s.guest("readlink", at(vf, "physfn"))), bridge: bridge,
		gpuNode: s.guest("cat", at(gpu, "numa_node")), vfNode: s.guest("cat", at(vf, "numa_node")),
	}
}

// has returns the addresses of the GPU and the VF that a running pod really
// has: of the GPU by nvidia-smi, of the VF by the sysfs that the container sees.
func (s *space) has(pod string) (gpu, vf string) {
	s.t.Helper()
	id := strings.TrimSpace(s.exec(pod, "nvidia-smi", "--query-gpu=pci.bus_id", "--format=csv,noheader"))
	address, err := topology.ParseAddress(id)
	if err != nil {
		s.t.Fatalf("the GPUs of pod %s are %q: %v", pod, id, err)
	}
	container := harness.ContainerID(s.wait(pod, harness.Running()), "work")
	const find = `ctr --namespace k8s.io tasks list | while read -r id pid state; do [ "$id" = "$0" ] && readlink /proc/$pid/root/sys/class/net/net1/device; done`
	device, err := onNode(s.ctx, "sh", "-c", find+"; true", container)
	if err != nil || device == "" {
		s.t.Fatalf("pod %s has no VF as its net1: %q, %v", pod, device, err)
	}
	return address.String(), path.Base(device)
}

// claim returns the claim that was made for a pod.
func (s *space) claim(pod string) *resourceapi.ResourceClaim {
	s.t.Helper()
	got, err := world.Client.CoreV1().Pods(s.name).Get(s.ctx, pod, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, status := range got.Status.ResourceClaimStatuses {
		if status.ResourceClaimName != nil {
			claim, err := world.Client.ResourceV1().ResourceClaims(s.name).Get(s.ctx, *status.ResourceClaimName, metav1.GetOptions{})
			if err != nil {
				s.t.Fatal(err)
			}
			return claim
		}
	}
	s.t.Fatalf("pod %s has no claim", pod)
	return nil
}

// wantTold fails the test unless the status of the pod's claim tells that it
// has this GPU and this VF, and how near they are.
func (s *space) wantTold(pod, gpu, vf string, where beside) {
	s.t.Helper()
	const format = `{"alignment":[{"gpu":%q,"gpuNUMANode":%s,"relation":%q,"vf":%q,"vfNUMANode":%s}],"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"DeviceAlignment"}`
	var want, got any
	if err := json.Unmarshal(fmt.Appendf(nil, format, gpu, where.gpuNode, relations()[where.bridge], vf, where.vfNode), &want); err != nil {
		s.t.Fatal(err)
	}
	s.until("told by the claim's status", func() error {
		devices := s.claim(pod).Status.Devices
		if len(devices) != 1 || devices[0].Data == nil {
			return fmt.Errorf("the claim's status has the devices %+v", devices)
		}
		return json.Unmarshal(devices[0].Data.Raw, &got)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("what the claim of pod %s tells (-want +got):\n%s", pod, diff)
	}
}

func TestEachGPUIsPublishedWithAVFOfTheNICBesideIt(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	got := map[string]beside{}
	for gpu, device := range s.publishedOf("gpu-vf") {
		got[gpu] = s.look(gpu, value(device, "vfPCIBusID"))
		if alignment := value(device, "alignment"); alignment != relations()[got[gpu].bridge] {
			t.Errorf("GPU %s and its VF are both below %s, and published as %s", gpu, got[gpu].bridge, alignment)
		}
		if root := value(device, "resource.kubernetes.io/pcieRoot"); root != "pci"+gpu[:len("0000:4")]+"0" {
			t.Errorf("GPU %s is published below %s", gpu, root)
		}
	}
	if diff := cmp.Diff(places(), got, cmp.AllowUnexported(beside{})); diff != "" {
		t.Errorf("pairs (-want +got):\n%s", diff)
	}
}

func TestPodsReachEachOtherOverTheVFsBesideTheirGPUs(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	names := []string{"a", "b", "c"}
	address := map[string]string{"a": "10.90.0.1", "b": "10.90.0.2", "c": "10.90.0.3"}
	for _, name := range names {
		s.template(name, pairs(1, fmt.Sprintf(`"addresses":["%s/24"]`, address[name])))
		s.create(vfPod(name, name))
		s.wait(name, harness.Running())
	}
	got := map[string]beside{}
	for _, name := range names {
		gpu, vf := s.has(name)
		got[gpu] = s.look(gpu, vf)
		s.wantTold(name, gpu, vf, got[gpu])
		s.wantInterface(name, "net1", address[name]+"/24", "UP")
	}
	if diff := cmp.Diff(places(), got, cmp.AllowUnexported(beside{})); diff != "" {
		t.Errorf("what the pods have (-want +got):\n%s", diff)
	}
	for _, from := range names {
		for _, to := range names {
			if err := s.pings(from, address[to]); err != nil {
				t.Errorf("pod %s does not reach pod %s: %v", from, to, err)
			}
		}
	}
	s.end()
	s.wantHost(before)
	s.waitPublished()
	// All can be had again.
	s.template("all", pairs(allGPUs, ""))
	s.create(vfPod("all", "all"))
	s.wait("all", harness.Running())
	s.wantInterface("all", fmt.Sprint("net", allGPUs), "UP")
	if gpus := strings.Fields(s.exec("all", "nvidia-smi", "--query-gpu=index", "--format=csv,noheader")); len(gpus) != allGPUs {
		t.Errorf("the pod has the GPUs %v, want %d", gpus, allGPUs)
	}
	s.end()
	s.wantHost(before)
}
