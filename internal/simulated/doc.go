// Package simulated is a DGX H100 and a DGX H200 that need no hardware.
//
// A [Machine] shows itself in the three ways in which a real one is seen: a
// sysfs tree, a driver root with the files of NVIDIA's driver, and NVML. The
// code above them is the one that runs on a real machine; none of it knows
// that the machine is simulated.
//
// The figures come from NVIDIA's DGX H100/H200 user guide (network module
// table, CPUs, memory) and from published listings of such machines made by
// nvidia-smi topo -m and lspci: addresses, NUMA nodes and device ids of GPUs,
// NICs and NVSwitches. Each GPU and its NIC hang below one root port: the NIC
// on the first PCIe switch, the GPU on a second switch behind it, which is
// what nvidia-smi calls PXB. The bus numbers between the root and the two
// devices are those that the published addresses leave room for. Where a real
// machine shows something else, the real machine is right.
//
// [NewAt] makes a machine of which only the GPUs are simulated, in the places
// of PCI functions that the real one has.
//
// MIG is off and cannot be switched on: its calls answer "not supported".
package simulated
