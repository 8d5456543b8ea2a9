package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

func TestAllGPUsOfTheNodeAreInOnePool(t *testing.T) {
	published, err := cluster.Slices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range published {
		node := ptr.Deref(slice.Spec.NodeName, "")
		if want := node + "/eks-hybrid-dra"; node == "" || slice.Spec.Pool.Name != want {
			t.Errorf("slice %s of node %q is in pool %q, want %q", slice.Name, node, slice.Spec.Pool.Name, want)
		}
	}
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names, want []string
	for i, device := range devices {
		names = append(names, device.Name)
		want = append(want, fmt.Sprintf("gpu-%d", i))
	}
	if diff := cmp.Diff(want, names); diff != "" || len(names) != gpusPerNode {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func TestAGPUIsPublishedWithWhatSelectorsAskFor(t *testing.T) {
	devices, err := cluster.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// PCI addresses and NUMA nodes of a DGX H200, by index.
	addresses := []string{
		"0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0",
		"0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0",
	}
	uuids := map[string]bool{}
	for i, device := range devices {
		got := map[resourceapi.QualifiedName]string{}
		for name, attribute := range device.Attributes {
			got[name] = value(attribute)
		}
		for _, name := range []resourceapi.QualifiedName{"uuid", "resource.kubernetes.io/pcieRoot", "driverVersion", "cudaDriverVersion"} {
			if got[name] == "" {
				t.Errorf("device %s has no attribute %s", device.Name, name)
			}
		}
		uuids[got["uuid"]] = true
		for _, varies := range []resourceapi.QualifiedName{"uuid", "resource.kubernetes.io/pcieRoot", "driverVersion", "cudaDriverVersion"} {
			delete(got, varies)
		}
		want := map[resourceapi.QualifiedName]string{
			"type": "gpu", "productName": "NVIDIA H200", "brand": "Nvidia", "architecture": "Hopper",
			"cudaComputeCapability": "9.0.0", "index": fmt.Sprint(i),
			"resource.kubernetes.io/pciBusID": addresses[i], "resource.kubernetes.io/numaNode": fmt.Sprint(i / 4),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes of %s (-want +got):\n%s", device.Name, diff)
		}
		if memory := device.Capacity["memory"].Value; memory.Cmp(resource.MustParse("143771Mi")) != 0 {
			t.Errorf("memory of %s is %s, want 143771Mi", device.Name, memory.String())
		}
	}
	if len(uuids) != gpusPerNode {
		t.Errorf("%d different UUIDs, want %d", len(uuids), gpusPerNode)
	}
}

// value is an attribute as text, whatever its type.
func value(a resourceapi.DeviceAttribute) string {
	switch {
	case a.StringValue != nil:
		return *a.StringValue
	case a.VersionValue != nil:
		return *a.VersionValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	}
	return ""
}
