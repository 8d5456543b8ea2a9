package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/devicemetadata"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestAContainerFindsThePCIAddressOfItsGPUInAFile(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	s.pod("reader", "one", "cat", metadata.ContainerDir+"/resourceclaimtemplates/gpu/gpu/eks-hybrid-dra-metadata.json")
	s.wait("reader", harness.Running())

	var got metadata.DeviceMetadata
	text := s.logs("reader", "show")
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(strings.NewReader(text)), &got); err != nil {
		t.Fatalf("decoding the file: %v; it has:\n%s", err, text)
	}
	if len(got.Requests) != 1 || len(got.Requests[0].Devices) != 1 {
		t.Fatalf("the file does not describe exactly one device:\n%s", text)
	}
	described := got.Requests[0].Devices[0]
	allocated := s.claim("reader").Status.Allocation.Devices.Results[0]
	if described.Name != allocated.Device || described.Pool != allocated.Pool {
		t.Errorf("the file describes device %s of pool %s, the claim has %s of %s", described.Name, described.Pool, allocated.Device, allocated.Pool)
	}
	devices, err := cluster.Devices(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range devices {
		if device.Name != described.Name {
			continue
		}
		published := device.Attributes[deviceattribute.StandardDeviceAttributePCIBusID]
		if diff := cmp.Diff(published, described.Attributes[deviceattribute.StandardDeviceAttributePCIBusID]); diff != "" {
			t.Errorf("PCI address (-published +in the file):\n%s", diff)
		}
	}
}
