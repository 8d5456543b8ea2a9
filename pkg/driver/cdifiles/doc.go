// Package cdifiles writes the CDI specs through which a container runtime
// gives a claim's devices to its containers: one file for each claim and
// family, because the edits that all devices of a family share are applied
// once for each file that a container uses.
package cdifiles
