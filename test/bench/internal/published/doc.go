// Package published makes nodes that exist in the API only, each with the
// devices that the driver publishes of a simulated machine in the cluster under
// test. No kubelet runs on them.
package published
