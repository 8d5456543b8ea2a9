// Package preflight finds out, before anything is started, what this machine
// lacks for a cluster, and says in one line each how to get it.
package preflight
