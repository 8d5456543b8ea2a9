// Package cni runs CNI plugins for VFs: those of a
// NetworkAttachmentDefinition, which attach the VF, or an IPAM plugin alone,
// which finds addresses for a VF that this driver attaches itself.
//
// A configuration is resolved once, when a claim is prepared, and is from then
// on a value that its user stores: whatever happens to the
// NetworkAttachmentDefinition, to the pod's network namespace or to this
// process, what was added can be deleted with that value alone. The plugins run
// on the host, in its mount and network namespace, because that is where they
// expect to be.
package cni
