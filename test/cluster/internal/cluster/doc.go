// Package cluster brings a cluster up and takes it down: it puts together
// namespaces, network, identities and components, and waits until each is
// really there. Everything that it leaves on the machine can be found from the
// state folder's path alone, so that Down works after any crash.
package cluster
