// Package prepare measures what a claim costs a node: preparing and
// unpreparing it, one at a time and many at once, starting the plugin, its
// memory, and the start of a pod as a user sees it.
//
// Where it can, it measures our driver and another one alternately, with the
// same client, in the same cluster, so that both have the same conditions.
package prepare
