// Package attach measures what a virtual function (VF) costs a pod: joining it
// to the pod's network namespace, the start of a pod as a user sees it, and how
// long the plugin looks at a machine full of VFs.
//
// The VFs are virtual Ethernet interfaces, and the machine's files are made
// up; kernel, container runtime and Kubernetes are real.
package attach
