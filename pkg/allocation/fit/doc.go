// Package fit chooses the node and the devices that suit a claim best, or a
// whole gang of claims.
//
// Whether a claim can have certain devices is decided by Kubernetes' own
// allocator alone. It takes the first that fit; so this package decides what it
// is shown, and in which order: first only the few devices that would be the
// best choice, then more and more of the node, at last everything. A ranking
// never hides a node that fits.
//
// The order of choices is: the alternative that the claim prefers; nodes that
// nobody asked to avoid; alignment (composites whose parts are near each other,
// few NUMA nodes, few PCIe roots); then what leaves the most to others (machines
// and NUMA nodes that are in use already, GPUs and VFs that break no pair, the
// places that are then full); then the name of the node. The same fleet and the
// same claim always give the same choice.
//
// Nothing here talks to the API or keeps what it has chosen: the caller tells
// the fleet. What was found out about a node is remembered for all nodes that
// are built alike and have the same devices taken.
package fit
