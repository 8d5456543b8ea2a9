package driver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
)

// What the helper writes is seen on a cluster, by test/e2e.
func TestContainersAreToldWhatTheirDevicesAre(t *testing.T) {
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("")
	claim := newClaim("a", []string{"net1", "gpu-0", "net2"})
	mustPrepare(t, d, claim)
	told := map[string]*resourceapi.NetworkDeviceData{}
	updates := 0
	d.updateMetadata = func(_ context.Context, namespace, name string, uid types.UID, request string, devices []kubeletplugin.Device) error {
		updates++
		for _, dev := range devices {
			told[fmt.Sprintf("%s/%s %s %s %s", namespace, name, uid, request, dev.DeviceName)] = dev.Metadata.NetworkData
		}
		return errors.New("the disk is full") // which keeps no container from starting
	}
	s := sandboxOf(t, "sandbox-1", "pod-a")
	for range 2 { // the second time there is nothing new
		n.mustAttach(d, "a", s)
	}
	network := func(name string) *resourceapi.NetworkDeviceData {
		return &resourceapi.NetworkDeviceData{InterfaceName: name, HardwareAddress: "02:00:00:00:00:01", IPs: []string{"10.0.0.5/24"}}
	}
	want := map[string]*resourceapi.NetworkDeviceData{"ns/claim-a a r0 net1": network("net1"), "ns/claim-a a r2 net2": network("net2")}
	if diff := cmp.Diff(want, told); diff != "" || updates != 2 {
		t.Errorf("%d updates, which tell (-want +got):\n%s", updates, diff)
	}

	// A repeated preparation does not take it away.
	for _, dev := range mustPrepare(t, d, claim) {
		if dev.DeviceName == "net1" {
			if diff := cmp.Diff(network("net1"), dev.Metadata.NetworkData); diff != "" {
				t.Errorf("after a repeated preparation (-want +got):\n%s", diff)
			}
		}
	}
}
