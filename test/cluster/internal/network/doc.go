// Package network joins host, control plane and node of a cluster with two veth
// pairs and routes, in a private range that nothing on the host uses.
//
//	host  ehd-<id> ── uplink  control plane  node ── eth0  node  cni0 ── pods
//
// The host's only share is one link and one route; both vanish with the control
// plane's namespace.
package network
