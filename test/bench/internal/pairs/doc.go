// Package pairs measures how quickly Kubernetes finds GPUs that have a virtual
// function (VF) of the NIC beside them: as the composite devices that the driver
// publishes, and out of single devices by requests and constraints.
//
// The devices are those that the driver publishes of a simulated DGX H200. The
// scheduler's allocator is asked directly, as a library, and then a real
// scheduler has to place pods on nodes that exist in the API only.
package pairs
