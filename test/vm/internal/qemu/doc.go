// Package qemu describes the guest's machine and runs it: two NUMA nodes with a
// PCIe root complex each, and network cards with real SR-IOV. On the first,
// two cards and two stand-ins for GPUs are behind one switch; on the second, a
// card and a stand-in are each straight in a root port.
package qemu
