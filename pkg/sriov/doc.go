// Package sriov is the family of SR-IOV virtual functions (VFs): it finds
// them, makes them where it is told to, prepares one for a claim, and joins it
// to the network namespace of a pod.
//
// A VF is changed in a way that outlives this process, so what it was before is
// written to a journal first, and every change can be repeated and undone from
// the journal alone. VFs are known by their PCI address; interfaces, indexes and
// the VF's number on its PF are looked up each time, because they change.
package sriov
