// Package image makes what the guest boots from: a folder with the few programs
// and kernel modules that it needs, that folder as the kernel's first file
// system, and a disk with the folder and the programs of a Kubernetes node.
package image
