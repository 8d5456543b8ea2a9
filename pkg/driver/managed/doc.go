// Package managed knows who gives each device of the node to claims:
// kube-scheduler or this project's controller, and, while that changes, nobody.
//
// Both allocators know of each other's work only through the API, and neither
// can be stopped. So a device that changes hands is first published such that
// both leave it alone. Once the API has been seen to say so, and what the former
// allocator had decided by then has had time to be written, the other gets it.
// How far a device has come is on disk before it is published: whatever happens
// to the plugin or to its slices, the way is never cut short. Of several
// instances of the plugin the latest decides, and the others publish the same.
package managed
