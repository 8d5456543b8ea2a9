// Package vfio binds PCI functions to kernel drivers through sysfs, above all to
// vfio-pci, which hands a function to a program in user space, and back.
//
// A driver is chosen by driver_override, so that no other function of the same
// model is touched.
package vfio
