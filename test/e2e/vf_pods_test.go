package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/devicemetadata"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestVFsOfDifferentVLANsDoNotHearEachOther(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	s.template("a", vfs(1, `"vlan":101,"addresses":["10.71.0.1/24"],"mac":"02:00:00:71:00:01"`))
	s.template("b", vfs(1, `"vlan":101,"addresses":["10.71.0.2/24","fd71::2/64"],"mtu":1400`))
	s.template("other", vfs(1, `"vlan":102,"addresses":["10.71.0.3/24"]`))
	s.template("none", vfs(1, `"addresses":["10.71.0.4/24"]`))
	s.template("other-peer", vfs(1, `"vlan":102,"addresses":["10.71.0.13/24"]`))
	s.template("none-peer", vfs(1, `"addresses":["10.71.0.14/24"]`))
	names := []string{"a", "b", "other", "none", "other-peer", "none-peer"}
	for _, name := range names {
		s.create(vfPod(name, name))
	}
	for _, name := range names {
		s.wait(name, harness.Running())
	}
	s.wantInterface("a", "net1", "02:00:00:71:00:01", "10.71.0.1/24")
	s.wantInterface("b", "net1", "10.71.0.2/24", "fd71::2/64", "mtu 1400")
	if err := s.pings("b", "10.71.0.1"); err != nil {
		t.Errorf("two pods of one VLAN do not reach each other: %v", err)
	}
	for name, peer := range map[string]string{"other": "10.71.0.13", "none": "10.71.0.14"} {
		if err := s.pings(name, "10.71.0.1"); err == nil {
			t.Errorf("pod %s reaches a pod of another VLAN", name)
		}
		// It is not that it reaches nobody at all.
		if err := s.pings(name, peer); err != nil {
			t.Errorf("pod %s does not reach one of its own VLAN: %v", name, err)
		}
	}
}

func TestEveryContainerOfAPodStartsWithItsVFs(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	s.template("two", vfs(2, ""))
	show := []string{"ip", "address", "show", "net2"}
	pod := vfPod("many", "two")
	sidecar := vfContainer("sidecar", "sleep", "infinity")
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	pod.Spec.InitContainers = []corev1.Container{vfContainer("first", show...), sidecar, vfContainer("second", show...)}
	pod.Spec.Containers = append(pod.Spec.Containers, vfContainer("beside", "sleep", "infinity"))
	s.create(pod)
	s.wait("many", harness.Running())

	seen := []string{s.logs("many", "first"), s.logs("many", "second"), s.exec("many", show...)}
	for _, container := range []string{"sidecar", "beside"} {
		out, err := cluster.Kubectl(s.ctx, append([]string{"exec", "-n", s.name, "many", "-c", container, "--"}, show...)...)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, out)
	}
	address := func(shown string) string {
		_, after, _ := strings.Cut(shown, "link/ether ")
		return strings.Fields(after + " none")[0]
	}
	for _, shown := range seen {
		if address(shown) != address(seen[0]) || !strings.Contains(shown, "net2") {
			t.Errorf("the containers see different interfaces:\n%s", strings.Join(seen, "\n"))
			break
		}
	}
	// A container that starts again finds the interfaces there.
	before := s.exec("many", "ip", "address", "show")
	s.killContainer("many", "work")
	if diff := cmp.Diff(before, s.exec("many", "ip", "address", "show")); diff != "" {
		t.Errorf("interfaces (-before +after a container started again):\n%s", diff)
	}
}

func TestAClaimTellsWhatItsVFHasBecome(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	s.template("one", vfs(1, `"ifName":"fabric0","mac":"02:00:00:72:00:01","addresses":["10.72.0.1/24"]`))
	pod := vfPod("told", "one")
	pod.Spec.InitContainers = []corev1.Container{vfContainer("metadata", "cat", metadata.ContainerDir+"/resourceclaimtemplates/vf/gpu/eks-hybrid-dra-metadata.json")}
	s.create(pod)
	s.wait("told", harness.Running())

	var status resourceapi.AllocatedDeviceStatus
	s.until("told by the claim's status", func() error {
		devices := s.claim("told").Status.Devices
		if len(devices) != 1 || !meta.IsStatusConditionTrue(devices[0].Conditions, "Ready") {
			return fmt.Errorf("the claim's status has %+v", devices)
		}
		status = devices[0]
		return nil
	})
	allocated := s.claim("told").Status.Allocation.Devices.Results[0]
	if status.Driver != harness.DriverName || status.Pool != allocated.Pool || status.Device != allocated.Device {
		t.Errorf("the status is of device %s of %s, the claim has %s of %s", status.Device, status.Pool, allocated.Device, allocated.Pool)
	}
	want := &resourceapi.NetworkDeviceData{InterfaceName: "fabric0", IPs: []string{"10.72.0.1/24"}, HardwareAddress: "02:00:00:72:00:01"}
	if diff := cmp.Diff(want, status.NetworkData); diff != "" {
		t.Errorf("network data (-want +got):\n%s", diff)
	}

	var file metadata.DeviceMetadata
	text := s.logs("told", "metadata")
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(strings.NewReader(text)), &file); err != nil {
		t.Fatalf("decoding the file: %v; it has:\n%s", err, text)
	}
	if len(file.Requests) != 1 || len(file.Requests[0].Devices) != 1 {
		t.Fatalf("the file does not describe exactly one device:\n%s", text)
	}
	if diff := cmp.Diff(want, file.Requests[0].Devices[0].NetworkData); diff != "" {
		t.Errorf("network data of the metadata file (-want +got):\n%s\nit has:\n%s", diff, text)
	}
	got := map[string]string{}
	for _, name := range []string{"ifName", "mac", "resource.kubernetes.io/pciBusID"} {
		got[name] = value(file.Requests[0].Devices[0].Attributes[resourceapi.QualifiedName(name)])
	}
	if diff := cmp.Diff(map[string]string{"ifName": "fabric0", "mac": "02:00:00:72:00:01", "resource.kubernetes.io/pciBusID": s.allocatedVF("told")}, got); diff != "" {
		t.Errorf("metadata file (-want +got):\n%s\nit has:\n%s", diff, text)
	}
}

func TestTheNextPodOfAVFFindsItClean(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	const address = "0000:dc:00.7" // in no other test
	s.template("odd", vfs(1, `"ifName":"odd0","mac":"02:00:00:73:00:01","vlan":173,"mtu":1300,"addresses":["10.73.0.1/24"]`, byAddress(address)))
	s.template("plain", vfs(1, "", byAddress(address)))
	s.create(vfPod("before", "plain"))
	s.wait("before", harness.Running())
	fresh := interfaceLines(s.exec("before", "ip", "address", "show", "net1"))
	s.delete("before")
	s.waitGone("before")
	s.create(vfPod("odd", "odd"))
	s.wait("odd", harness.Running())
	s.wantInterface("odd", "odd0", "02:00:00:73:00:01", "mtu 1300", "10.73.0.1/24")
	s.forceDelete("odd")
	s.create(vfPod("next", "plain"))
	s.wait("next", harness.Running())
	if diff := cmp.Diff(fresh, interfaceLines(s.exec("next", "ip", "address", "show", "net1"))); diff != "" {
		t.Errorf("the VF (-before +after another pod had it):\n%s", diff)
	}
}

// interfaceLines is what is shown of an interface, but for its number.
func interfaceLines(shown string) []string {
	_, rest, _ := strings.Cut(shown, ": ")
	lines := strings.Split(strings.TrimSpace(rest), "\n")
	slices.Sort(lines)
	return lines
}

func TestAPodWhoseSandboxIsLostHasItsVFAgain(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	s.template("one", vfs(1, `"vlan":174,"addresses":["10.74.0.1/24"]`))
	s.template("peer", vfs(1, `"vlan":174,"addresses":["10.74.0.2/24"]`))
	s.create(vfPod("peer", "peer"))
	s.create(vfPod("victim", "one"))
	s.wait("peer", harness.Running())
	old := harness.ContainerID(s.wait("victim", harness.Running()), "work")
	vf := s.allocatedVF("victim")
	s.killSandbox("victim")
	s.wait("victim", runsAnew("work", old))
	s.wantInterface("victim", "net1", "10.74.0.1/24")
	if now := s.allocatedVF("victim"); now != vf {
		t.Errorf("the pod has VF %s, had %s", now, vf)
	}
	if err := s.pings("peer", "10.74.0.1"); err != nil {
		t.Errorf("the VF is not in its VLAN any more: %v", err)
	}
}

func TestAClaimThatTwoPodsShareAttachesItsVFToTheFirst(t *testing.T) {
	t.Parallel()
	s := newSpace(t, nil)
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared"}, Spec: vfs(1, "")}
	if _, err := cluster.Client.ResourceV1().ResourceClaims(s.name).Create(s.ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	shared := func(name string) *corev1.Pod {
		pod := vfPod(name, "")
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "vf", ResourceClaimName: ptr.To("shared")}}
		return pod
	}
	s.create(shared("first"))
	s.wait("first", harness.Running())
	s.create(shared("second"))
	s.wantRefused("second", "work", s.name+"/first")
	s.wantInterface("first", "net1")

	s.delete("first")
	s.wait("second", harness.Running())
	s.wantInterface("second", "net1")
}
