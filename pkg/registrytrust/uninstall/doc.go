// Package uninstall takes what registry-trust has written off all nodes before
// its DaemonSet is deleted: it has the DaemonSet's own pods remove it, on each
// node, and waits until they all have. So nothing is removed because a pod
// ended, as it does in every update, and nothing is forgotten.
package uninstall
