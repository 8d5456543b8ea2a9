// Package fleettest makes what a fleet is told of, for tests and benchmarks:
// machines like a DGX H100 with their slices as the kubelet plugin publishes
// them, classes and claims.
package fleettest
