package fleettest

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Names of the managed classes.
const (
	ClassGPU   = "managed-gpu." + Driver
	ClassVF    = "managed-vf." + Driver
	ClassGPUVF = "managed-gpu-vf." + Driver
)

// Classes are the managed classes, and one that is not managed for each kind.
func Classes() []*resourceapi.DeviceClass {
	return []*resourceapi.DeviceClass{
		Class(ClassGPU, device.KindGPU, true), Class(ClassVF, device.KindVF, true), Class(ClassGPUVF, device.KindGPUVF, true),
		Class("gpu."+Driver, device.KindGPU, false), Class("vf."+Driver, device.KindVF, false), Class("gpu-vf."+Driver, device.KindGPUVF, false),
	}
}

// Class selects the devices of a kind.
func Class(name string, kind device.Kind, managed bool) *resourceapi.DeviceClass {
	expression := fmt.Sprintf(`device.driver == %[1]q && device.attributes[%[1]q].type == %[2]q`, Driver, kind)
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name), ResourceVersion: "1"}}
	if managed {
		c.Labels = map[string]string{v1alpha1.LabelManagedClass: "true"}
		expression += fmt.Sprintf(` && device.attributes[%q].?allocator.orValue("") == %q`, Driver, device.AllocatorController)
	}
	c.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}
	return c
}

// Claim asks for what the requests say.
func Claim(name string, requests ...resourceapi.DeviceRequest) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-of-" + name), ResourceVersion: "1"},
		Spec:       resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}},
	}
}

// Request asks for so many devices of a class for which all the expressions are
// true.
func Request(name, class string, count int64, expressions ...string) resourceapi.DeviceRequest {
	return resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count, Selectors: selectors(expressions),
	}}
}

// All asks for all devices of a class for which the expressions are true.
func All(name, class string, expressions ...string) resourceapi.DeviceRequest {
	return resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeAll, Selectors: selectors(expressions),
	}}
}

// FirstOf asks for the first of the requests that can be had.
func FirstOf(name string, requests ...resourceapi.DeviceRequest) resourceapi.DeviceRequest {
	all := resourceapi.DeviceRequest{Name: name}
	for _, r := range requests {
		all.FirstAvailable = append(all.FirstAvailable, resourceapi.DeviceSubRequest{
			Name: r.Name, DeviceClassName: r.Exactly.DeviceClassName, Selectors: r.Exactly.Selectors,
			AllocationMode: r.Exactly.AllocationMode, Count: r.Exactly.Count,
		})
	}
	return all
}

// Allocated returns the claim as it is once it has devices of a machine.
func Allocated(c *resourceapi.ResourceClaim, m Machine, devices ...string) *resourceapi.ResourceClaim {
	c = c.DeepCopy()
	c.ResourceVersion += "0"
	c.Status.Allocation = &resourceapi.AllocationResult{}
	for _, d := range devices {
		c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{
			Request: "r", Driver: Driver, Pool: m.Pool(), Device: d,
		})
	}
	return c
}

func selectors(expressions []string) []resourceapi.DeviceSelector {
	var all []resourceapi.DeviceSelector
	for _, e := range expressions {
		all = append(all, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: e}})
	}
	return all
}
