// Package packages brings programs of a fixed Debian release to a machine of
// any Debian release, and changes nothing of that machine: apt gets lists, a
// status file and a cache of its own, and what it downloads is only unpacked.
// The mirrors are those that the machine's own configuration names.
package packages
