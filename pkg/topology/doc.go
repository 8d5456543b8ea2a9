// Package topology tells where a PCI device sits in the machine: below which
// bridges, under which host bridge, on which NUMA node; and from that how near
// two devices are to each other, in the words of nvidia-smi.
//
// It knows nothing but sysfs, and reads it below a root that the caller names,
// so that a captured or simulated machine is read like a real one.
package topology
