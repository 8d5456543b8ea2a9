// Package podprocs tells whether a pod still has processes on this node, from
// procfs alone. The API cannot tell: a pod that was deleted by force is gone
// from it while its containers run on.
package podprocs
