package pairs

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Classes of devices, as the plain manifests have them.
const (
	gpuClass  = harness.DeviceClass
	vfClass   = "vf.eks-hybrid-dra"
	pairClass = "gpu-vf.eks-hybrid-dra"
)

// some asks for devices of a class by one request.
func some(class string, count int64) resourceapi.DeviceClaim {
	return resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{request("devices", class, count)}}
}

// constrained asks for pairs by single devices: a request for each GPU, then one
// for each VF, and a constraint for each pair.
func constrained(pairs int) resourceapi.DeviceClaim {
	c := inTurn(pairs)
	var gpus, vfs []resourceapi.DeviceRequest
	for i := range pairs {
		gpus, vfs = append(gpus, c.Requests[2*i]), append(vfs, c.Requests[2*i+1])
	}
	c.Requests = append(gpus, vfs...)
	return c
}

// inTurn asks for the same as [constrained], but the GPU and the VF of a pair
// follow each other, so that the allocator notices early when they do not match.
func inTurn(pairs int) resourceapi.DeviceClaim {
	var c resourceapi.DeviceClaim
	root := resourceapi.FullyQualifiedName(rootAttribute)
	for i := range pairs {
		gpu, vf := fmt.Sprintf("gpu-%d", i), fmt.Sprintf("vf-%d", i)
		c.Requests = append(c.Requests, request(gpu, gpuClass, 1), request(vf, vfClass, 1))
		c.Constraints = append(c.Constraints, resourceapi.DeviceConstraint{Requests: []string{gpu, vf}, MatchAttribute: &root})
	}
	return c
}

// request has the defaults that the API server would fill in.
func request(name, class string, count int64) resourceapi.DeviceRequest {
	return resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count,
	}}
}
