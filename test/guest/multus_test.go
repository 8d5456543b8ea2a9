package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/plugins"
)

const (
	// vfResource and network are the names in testdata, and those of the example.
	vfResource, network = "nvidia.com/vf", "sriov-net"
	// firstConfig is what containerd's CNI is as long as it is there, the first by
	// name; clusterConfig is what it is else.
	firstConfig, clusterConfig = "/etc/cni/net.d/00-multus.conf", "/etc/cni/net.d/10-cluster.conflist"
	// multusDir and multusCache are Multus's folders in the guest.
	multusDir, multusCache = "/etc/cni/multus", "/var/lib/cni/multus"
	cniPlugins             = "/opt/cni/bin"
)

// Kubelet gives VFs by the device plugin, and the real Multus has the real
// sriov-cni move them into pods.
func TestMultusAttachesTheVFsThatKubeletGave(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	s.renameEth0()
	before := s.host()
	s.serveVFs()
	s.installMultus()

	for name, count := range map[string]int{"a": 1, "b": 1, "two": 2} {
		s.create(multusPod(name, count))
	}
	a, b := s.wantAttached("a", 1, before), s.wantAttached("b", 1, before)
	two := s.wantAttached("two", 2, before)
	if all := slices.Concat(a.vfs, b.vfs, two.vfs); len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
		t.Errorf("pods have the VFs %v, want each once", all)
	}
	host := strings.Join(s.host(), "\n")
	if n := strings.Count(host, "vlan 190"); n != 4 {
		t.Errorf("%d VFs are in the network's VLAN 190, want those 4 that pods have:\n%s", n, host)
	}
	s.wantPings("a", b.address)
	s.wantPings("b", a.address)

	// Interfaces that are with pods are no problem of the VFs, for a plugin that
	// finds them so at its start neither.
	s.waitAllocatable()
	s.replacePlugin()
	s.waitAllocatable()
	s.wantPings("a", b.address)

	s.apply("device-plugin-vf")
	s.wait("device-plugin-vf", harness.Succeeded())
	if got := s.attachments("device-plugin-vf"); len(got) != 1 || got[0].DeviceInfo == nil {
		t.Errorf("the network status of the example is %+v, want one VF", got)
	} else {
		s.wantPrinted("device-plugin-vf", "main", "PCIDEVICE_NVIDIA_COM_VF="+got[0].DeviceInfo.Pci.PciAddress)
	}

	s.end()
	s.wantHost(before)
	all := vfResourcePod("all", allVFs)
	s.create(all)
	s.wait("all", harness.Running())
	s.end()
}

// renameEth0 renames the VF that is called so, if there is one. With udev there is
// none, and here sriov-cni would fail: it gives a VF its own name back while it is
// still in the pod, which has an eth0.
func (s *space) renameEth0() {
	s.t.Helper()
	for _, line := range s.host() {
		if strings.Contains(line, " name=eth0 ") {
			s.guest("ip", "link", "set", "eth0", "name", "vf-eth0")
		}
	}
}

// serveVFs has the device plugin serve all VFs until the test ends.
func (s *space) serveVFs() {
	s.t.Helper()
	become := func(kustomization string) {
		s.t.Helper()
		ctx, cancel := context.WithTimeout(s.ctx, installPatience)
		defer cancel()
		if err := errors.Join(world.ApplyKustomization(ctx, kustomization), world.WaitDriver(ctx)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Cleanup(func() {
		become(manifests)
		s.waitPublished()
	})
	become("test/guest/testdata/device-plugin")
	s.waitAllocatable()
	s.until("offered to claims no more", func() error {
		if left := len(s.published()) + len(s.publishedOf("gpu-vf")); left > 0 {
			return fmt.Errorf("%d VFs and pairs are", left)
		}
		return nil
	})
}

// waitAllocatable waits until kubelet knows all VFs as healthy.
func (s *space) waitAllocatable() {
	s.t.Helper()
	s.until("allocatable", func() error {
		node, err := world.Client.CoreV1().Nodes().Get(s.ctx, world.node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := node.Status.Allocatable[vfResource]; got.Value() != allVFs {
			return fmt.Errorf("the node has %s of %s, want %d", got.String(), vfResource, allVFs)
		}
		return nil
	})
}

// installMultus makes Multus the node's first CNI until the test ends. It goes on
// with what the node had.
func (s *space) installMultus() {
	s.t.Helper()
	const rights = "test/guest/testdata/multus.yaml"
	if _, err := world.Kubectl(s.ctx, "apply", "-f", rights); err != nil {
		s.t.Fatal(err)
	}
	if err := world.Apply(s.ctx, s.name, "test/guest/testdata/network.yaml"); err != nil {
		s.t.Fatal(err)
	}
	folder := filepath.Join(world.node.Share(), plugins.Multus)
	s.t.Cleanup(func() {
		s.end()
		s.guest("rm", "-rf", firstConfig, multusDir, multusCache, path.Join(cniPlugins, plugins.Multus), path.Join(cniPlugins, plugins.SRIOV))
		_, err := world.Kubectl(s.ctx, "delete", "-f", rights)
		if err := errors.Join(err, os.RemoveAll(folder)); err != nil {
			s.t.Error(err)
		}
	})
	// A run that was cut off may have left it in a guest that was kept.
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{plugins.Multus, plugins.SRIOV} {
		program, err := plugins.Ensure(s.ctx, name, os.Stderr)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.Link(program, filepath.Join(folder, name)); err != nil {
			s.t.Fatal(err)
		}
		s.guest("cp", world.node.Guest(filepath.Join(folder, name)), cniPlugins)
	}
	kubeconfig := path.Join(multusDir, "kubeconfig")
	s.writeKubeconfig(filepath.Join(folder, "kubeconfig"))
	config, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "multus", "type": plugins.Multus, "kubeconfig": kubeconfig,
		"delegates": []json.RawMessage{json.RawMessage(s.guest("cat", clusterConfig))},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "config"), config, 0o644); err != nil {
		s.t.Fatal(err)
	}
	in := world.node.Guest(folder)
	// containerd looks when a name in its folder goes, not when one comes.
	s.guest("sh", "-c", fmt.Sprintf("mkdir -p %[1]s && cp %[2]s/kubeconfig %[1]s && cp %[2]s/config %[3]s.new && mv %[3]s.new %[3]s", multusDir, in, firstConfig))
	s.waitMultus()
}

// writeKubeconfig writes how Multus reaches the API server: as kubelet does, under
// its own name.
func (s *space) writeKubeconfig(file string) {
	s.t.Helper()
	token, err := world.Client.CoreV1().ServiceAccounts("kube-system").CreateToken(s.ctx, "multus", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(filepath.Join(world.node.Share(), "node", "etc", "kubelet.kubeconfig"))
	if err != nil {
		s.t.Fatal(err)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{"multus": {Token: token.Status.Token}}
	for _, context := range config.Contexts {
		context.AuthInfo = "multus"
	}
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		s.t.Fatal(err)
	}
}

// waitMultus returns when new pods have their network from Multus, which tells so:
// containerd hears of its configuration some time after it was written.
func (s *space) waitMultus() {
	s.t.Helper()
	try := 0
	s.until("with Multus as its CNI", func() error {
		try++
		name := fmt.Sprint("try-", try)
		pod := vfPod(name, "")
		pod.Spec.ResourceClaims, pod.Spec.Containers[0].Resources = nil, corev1.ResourceRequirements{}
		pod.Spec.NodeName = world.node.Name // the cluster has one of its own, too
		s.create(pod)
		told := s.wait(name, harness.Running()).Annotations[netv1.NetworkStatusAnnot]
		s.delete(name)
		if told == "" {
			return errors.New("a pod has no network status")
		}
		return nil
	})
}

// vfResourcePod returns a pod that has VFs as an extended resource, and lives on.
func vfResourcePod(name string, count int) *corev1.Pod {
	pod := vfPod(name, "")
	pod.Spec.ResourceClaims = nil
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Limits: corev1.ResourceList{vfResource: *resource.NewQuantity(int64(count), resource.DecimalSI)},
	}
	return pod
}

// multusPod returns a pod that has VFs, all of them in the network.
func multusPod(name string, count int) *corev1.Pod {
	pod := vfResourcePod(name, count)
	pod.Annotations = map[string]string{
		netv1.NetworkAttachmentAnnot: strings.Join(slices.Repeat([]string{network}, count), ","),
	}
	return pod
}

// attachments returns what Multus says of the pod's interfaces in the network.
func (s *space) attachments(name string) []netv1.NetworkStatus {
	s.t.Helper()
	pod, err := world.Client.CoreV1().Pods(s.name).Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []netv1.NetworkStatus
	if err := json.Unmarshal([]byte(pod.Annotations[netv1.NetworkStatusAnnot]), &all); err != nil {
		s.t.Fatalf("the network status of pod %s: %v in %q", name, err, pod.Annotations[netv1.NetworkStatusAnnot])
	}
	return slices.DeleteFunc(all, func(status netv1.NetworkStatus) bool { return status.Name != s.name+"/"+network })
}

// attached is what a pod got: the addresses of its VFs, and that of its first
// interface.
type attached struct {
	vfs     []string
	address string
}

// wantAttached waits until the pod runs, and fails the test unless its interfaces
// are just the VFs that kubelet gave it, as the device plugin described them. The
// host said before what is to be known of them.
func (s *space) wantAttached(pod string, count int, before []string) (got attached) {
	s.t.Helper()
	s.wait(pod, harness.Running())
	statuses := s.attachments(pod)
	if len(statuses) != count {
		s.t.Fatalf("pod %s has the networks %+v, want %d", pod, statuses, count)
	}
	for i, status := range statuses {
		if status.DeviceInfo == nil || status.DeviceInfo.Pci == nil || len(status.IPs) != 1 {
			s.t.Fatalf("the network status of pod %s is %+v, want a PCI device and an address", pod, status)
		}
		vf := status.DeviceInfo.Pci.PciAddress
		device := path.Join("/sys/bus/pci/devices", vf)
		want := netv1.NetworkStatus{
			Name: s.name + "/" + network, Interface: fmt.Sprint("net", i+1), IPs: status.IPs,
			Mac: macOf(before, vf), Mtu: status.Mtu, DNS: status.DNS,
			DeviceInfo: &netv1.DeviceInfo{
				Type: netv1.DeviceInfoTypePCI, Version: netv1.DeviceInfoVersion,
				Pci: &netv1.PciDevice{PciAddress: vf, PfPciAddress: path.Base(s.guest("readlink", path.Join(device, "physfn")))},
			},
		}
		if diff := cmp.Diff(want, status); diff != "" {
			s.t.Errorf("the network status of pod %s (-want +got):\n%s", pod, diff)
		}
		s.wantInterface(pod, status.Interface, "UP", status.Mac, status.IPs[0]+"/24")
		if left := s.guest("sh", "-c", "ls "+device+"/net 2>/dev/null || true"); left != "" {
			s.t.Errorf("the host still has the interface %s of VF %s, which pod %s has", left, vf, pod)
		}
		got.vfs = append(got.vfs, vf)
	}
	got.address = statuses[0].IPs[0]
	if given := s.givenVFs(pod); !slices.Equal(given, slices.Sorted(slices.Values(got.vfs))) {
		s.t.Errorf("kubelet gave pod %s the VFs %v, and it has %v", pod, given, got.vfs)
	}
	return got
}

// givenVFs are those that the pod's container was told of, sorted.
func (s *space) givenVFs(pod string) []string {
	s.t.Helper()
	for _, variable := range strings.Split(s.exec(pod, "cat", "/proc/1/environ"), "\x00") {
		if given, ok := strings.CutPrefix(variable, "PCIDEVICE_NVIDIA_COM_VF="); ok {
			return slices.Sorted(slices.Values(strings.Split(given, ",")))
		}
	}
	return nil
}

// macOf finds a VF's MAC address in what the host said of all.
func macOf(host []string, vf string) string {
	for _, line := range host {
		if !strings.HasPrefix(line, vf+" ") {
			continue
		}
		for _, field := range strings.Fields(line) {
			if mac, ok := strings.CutPrefix(field, "mac="); ok {
				return mac
			}
		}
	}
	return ""
}

func (s *space) wantPings(pod, address string) {
	s.t.Helper()
	if err := s.pings(pod, address); err != nil {
		s.t.Errorf("pod %s does not reach %s: %v", pod, address, err)
	}
}
