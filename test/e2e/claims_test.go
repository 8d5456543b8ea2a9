package e2e

import (
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// gpus asks for GPUs that all expressions accept.
func gpus(count int64, expressions ...string) resourceapi.ResourceClaimSpec {
	return claimOf(resourceapi.ExactDeviceRequest{
		DeviceClassName: harness.DeviceClass,
		AllocationMode:  resourceapi.DeviceAllocationModeExactCount,
		Count:           count,
		Selectors:       selectors(expressions),
	})
}

// allGPUsAsAdmin asks to see all GPUs of a node, used or not.
func allGPUsAsAdmin() resourceapi.ResourceClaimSpec {
	admin := true
	return claimOf(resourceapi.ExactDeviceRequest{
		DeviceClassName: harness.DeviceClass,
		AllocationMode:  resourceapi.DeviceAllocationModeAll,
		AdminAccess:     &admin,
	})
}

// oneGPUConfigured asks for a GPU with the driver's own configuration, given as
// JSON.
func oneGPUConfigured(config string) resourceapi.ResourceClaimSpec {
	claim := gpus(1)
	claim.Devices.Config = []resourceapi.DeviceClaimConfiguration{{
		DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
			Driver:     harness.DriverName,
			Parameters: runtime.RawExtension{Raw: []byte(config)},
		}},
	}}
	return claim
}

func claimOf(request resourceapi.ExactDeviceRequest) resourceapi.ResourceClaimSpec {
	return resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "gpu", Exactly: &request}},
	}}
}

func selectors(expressions []string) []resourceapi.DeviceSelector {
	var out []resourceapi.DeviceSelector
	for _, expression := range expressions {
		out = append(out, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: expression}})
	}
	return out
}

// byUUID accepts only the one GPU.
func byUUID(uuid string) string {
	return "device.attributes['eks-hybrid-dra'].uuid == '" + uuid + "'"
}
