// Package admission refuses claims and pods that can never work, at the moment
// when somebody makes them and can still read why: configurations that the
// plugin would refuse on the node, claims that two allocators would have to
// share, labels of gangs that make no sense, and pods that ask for devices and
// give them to no container. It is a convenience and no guard: a control plane
// that cannot reach it goes on, and the plugin checks again.
package admission
