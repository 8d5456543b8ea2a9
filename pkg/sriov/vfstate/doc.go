// Package vfstate keeps the journal of each VF that a claim has: what the VF was
// before, what was done to it, and which pod's network namespace it is in. It is
// written before a change, so that a crash at any moment leaves enough to go on
// or to go back.
package vfstate
