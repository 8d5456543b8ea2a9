// Package fleet is what the controller knows of nodes, devices and what is
// given: a live view that is changed by each event and never rebuilt.
//
// It is told of slices, classes, nodes and claims with the Set and Delete
// methods, by whoever watches the API, and keeps of them only what an allocator
// needs: machines that are built alike share one [Shape], so that a thousand of
// them take little more memory than one. It has no goroutines and asks nobody.
// Readers take a [View], which never changes.
package fleet
