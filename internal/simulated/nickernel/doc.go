// Package nickernel is a kernel that has the NICs of a simulated machine: it
// makes them from virtual Ethernet pairs, so that pods get real interfaces and
// reach each other over them, and passes everything else on to the real
// kernel.
//
// A port and each of its VFs is one end of a pair; the other end, called the
// same with a "p" behind, is its place on the switch that all ports share:
//
//	ibp24s0   ── ibp24s0p   ─┐
//	ibp24s0v0 ── ibp24s0v0p ─┤ simfabric0
//	ibp64s0v3 ── ibp64s0v3p ─┘
//	ibp64s0v4 ── ibp64s0v4p ── simfabric100    (VLAN 100)
//
// The PCI address is in the interface's alias, which stays when the interface
// moves to a pod. VLAN and link state of a VF work: the other end is on a
// switch of that VLAN, and is down where the link is. Trust, spoof check, QoS
// and rates are only remembered, as the NIC's firmware would until a reboot.
//
// A pair ends with the network namespace that one end is in, while a real VF
// comes back to the host. So lost VFs are made anew at once, by [Kernel.Keep].
// Only [Remove] removes the interfaces, for pods may be using them. They are one
// group, which "ip link delete group 24680" removes, too.
package nickernel
