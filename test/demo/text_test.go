package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestTheTableHasADashForWhatIsNotKnown(t *testing.T) {
	got := table([]resourceapi.Device{{
		Name:       "gpu-0",
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"productName": {StringValue: ptr.To("NVIDIA H200")}, "resource.kubernetes.io/numaNode": {IntValue: ptr.To[int64](1)}},
		Capacity:   map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("143771Mi")}},
	}})
	want := "" +
		"  NAME    PRODUCT       MEMORY     PCI ADDRESS   PCIE ROOT   NUMA NODE\n" +
		"  gpu-0   NVIDIA H200   143771Mi   -             -           1\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestTheAllocationTellsWhatWasAskedForAndGiven(t *testing.T) {
	got := allocation(&resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
			Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu.eks-hybrid-dra", Count: 1},
		}}}},
		Status: resourceapi.ResourceClaimStatus{Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{
			Results: []resourceapi.DeviceRequestAllocationResult{{Request: "gpu", Device: "gpu-3", Pool: "dgx-0/eks-hybrid-dra"}},
		}}},
	})
	want := "" +
		"  claim      mine\n" +
		"  asked for  1 × gpu.eks-hybrid-dra\n" +
		"  was given  gpu-3 of pool dgx-0/eks-hybrid-dra\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allocation (-want +got):\n%s", diff)
	}
}

func TestThePortTableHasOneLineForEachPort(t *testing.T) {
	vf := func(name, port string) resourceapi.Device {
		return resourceapi.Device{Name: name, Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": {StringValue: ptr.To("vf")}, "pfName": {StringValue: ptr.To(port)}, "linkType": {StringValue: ptr.To("ether")}, "rdma": {BoolValue: ptr.To(true)},
		}}
	}
	got := portTable([]resourceapi.ResourceSlice{
		{Spec: resourceapi.ResourceSliceSpec{Devices: []resourceapi.Device{{Name: "gpu-0"}, vf("vf-a-0", "ibp24s0"), vf("vf-a-1", "ibp24s0")}}},
		{Spec: resourceapi.ResourceSliceSpec{Devices: []resourceapi.Device{vf("vf-b-0", "ibp64s0")}}},
	})
	want := "" +
		"  PORT      VFS   FIRST VF   LINK    RDMA   PCIE ROOT   NUMA NODE\n" +
		"  ibp24s0   2     vf-a-0     ether   true   -           -\n" +
		"  ibp64s0   1     vf-b-0     ether   true   -           -\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestTheAttachmentTellsInterfaceAndAddresses(t *testing.T) {
	got := attachment(&resourceapi.ResourceClaim{Status: resourceapi.ResourceClaimStatus{Devices: []resourceapi.AllocatedDeviceStatus{{
		Device:      "vf-a-0",
		NetworkData: &resourceapi.NetworkDeviceData{InterfaceName: "net1", HardwareAddress: "02:00:00:00:00:01", IPs: []string{"192.168.10.2/24"}},
	}}}})
	if want := "  vf-a-0 is interface net1, 02:00:00:00:00:01, with 192.168.10.2/24\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
