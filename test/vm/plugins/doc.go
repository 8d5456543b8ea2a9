// Package plugins builds CNI plugins that users put on their nodes and that this
// project does not ship, Multus and sriov-cni, so that tests on a node in the guest
// run the real ones. Each comes from a Go module of its own below this folder, and
// is kept in the cache that all clones share.
package plugins
