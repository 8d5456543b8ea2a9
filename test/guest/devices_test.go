package guest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
)

func TestVFsAreMadeAndPublished(t *testing.T) {
	s := newSpace(t)
	published := s.waitPublished()
	want, got := map[string]map[string]string{}, map[string]map[string]string{}
	for _, card := range cards() {
		if before := world.vfsBefore[card.address]; before != "0" {
			t.Logf("card %s had %s VFs before: was the guest kept?", card.address, before)
		}
		name := s.guest("ls", card.sysfs("net"))
		for i := range card.vfs {
			want[card.vf(i)] = map[string]string{
				"type": "vf", "pfName": name, "vfIndex": fmt.Sprint(i), "linkType": "ether", "rdma": "false",
				"driver": "igbvf", "vendor": "8086", "device": "10ca", "mtu": "1500",
				"resource.kubernetes.io/pcieRoot": card.root, "resource.kubernetes.io/numaNode": card.numa,
			}
		}
	}
	for address, device := range published {
		got[address] = map[string]string{}
		for name := range want[switchedVF] {
			got[address][name] = value(device, resourceapi.QualifiedName(name))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("VFs (-want +got):\n%s", diff)
	}
}
