// Package workload has the pods of a DaemonSet or a Deployment do something
// else for a while, remembers in an annotation what they did, and puts them
// back.
//
// A change is made in the name of whoever applied the object, so that its next
// apply, such as that of a helm upgrade, is no conflict and undoes the change.
package workload
