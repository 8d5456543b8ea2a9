// Package nic says which SR-IOV NICs a machine has: physical functions (PFs)
// and their virtual functions (VFs), as sysfs and the kernel show them at one
// moment. It changes nothing, and knows PCI functions by their address.
package nic
