// Package node makes of a guest a node of a test cluster, whose control plane
// stays outside: kubelet, containerd and runc run in the guest, on its own
// kernel, with its real VFs. See [Join].
package node
