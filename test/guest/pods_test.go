package guest

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestMACAndVLANAreWhatTheClaimSays(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	// Of two cards, so that it is not one card alone that keeps them apart.
	s.template("a", vfs(1, `"vlan":101,"addresses":["10.71.0.1/24"],"mac":"02:00:00:71:00:01"`, byAddress(switchedVF)))
	s.template("b", vfs(1, `"vlan":101,"addresses":["10.71.0.2/24"],"mtu":1400`, byAddress(rootedVF)))
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
	s.wantInterface("b", "net1", "10.71.0.2/24", "mtu 1400")
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
	// The card knows the address that the claim said.
	if card := s.guest("ip", "link", "show", s.guest("ls", cards()[0].sysfs("net"))); !strings.Contains(card, "02:00:00:71:00:01") || !strings.Contains(card, "vlan 101") {
		t.Errorf("the card does not show the VF's address and VLAN:\n%s", card)
	}
	s.end()
	s.wantHost(before)
}

func TestAPodWithTwoVFs(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	s.template("two", vfs(2, ""))
	pod := vfPod("two", "two")
	first := pod.Spec.Containers[0]
	first.Name, first.Command = "first", []string{"ip", "address", "show", "net2"}
	pod.Spec.InitContainers = []corev1.Container{first}
	s.create(pod)
	s.wait("two", harness.Running())
	s.wantPrinted("two", "first", "net2", "UP")
	s.wantInterface("two", "net1", "UP")
	s.wantInterface("two", "net2", "UP")
	s.end()
	s.wantHost(before)
}

func TestAVFForVFIOIsBoundAndGivenBack(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	s.template("vfio", vfs(1, `"mode":"vfio-pci"`, byAddress(rootedVF)))
	s.create(vfPod("vfio", "vfio"))
	s.wait("vfio", harness.Running())
	const sysfs = "/sys/bus/pci/devices/" + rootedVF
	group := s.guest("sh", "-c", "basename $(readlink "+sysfs+"/iommu_group)")
	if nodes := strings.Fields(s.exec("vfio", "ls", "/dev/vfio")); !slices.Contains(nodes, group) || !slices.Contains(nodes, "vfio") {
		t.Errorf("the pod has the nodes %v, want vfio and that of group %s", nodes, group)
	}
	if driver := s.guest("sh", "-c", "basename $(readlink "+sysfs+"/driver)"); driver != "vfio-pci" {
		t.Errorf("the VF has the driver %s", driver)
	}
	s.end()
	s.wantHost(before)
}

func TestAClaimThatTwoPodsShareAttachesItsVFToTheFirst(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared"}, Spec: vfs(1, "")}
	if _, err := world.Client.ResourceV1().ResourceClaims(s.name).Create(s.ctx, claim, metav1.CreateOptions{}); err != nil {
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
	s.wantRefused("second", "vf-0000-", s.name+"/first")
	s.wantInterface("first", "net1")
	s.delete("first")
	s.wait("second", harness.Running())
	s.wantInterface("second", "net1")
	s.delete("second")
	s.waitGone("second")
	if err := world.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "shared", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wantHost(before)
}
