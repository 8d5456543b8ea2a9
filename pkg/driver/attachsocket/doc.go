// Package attachsocket is how the attach hook, a small program that a container
// runtime runs on the host, asks the kubelet plugin to attach a claim's
// devices.
//
// Each instance of the plugin listens on a socket of its own in one folder, so
// that an update may run two side by side. One packet carries the request and,
// as a descriptor, the network namespace; the instance says at once that it has
// begun, and then how it ended. An instance that does not begin is not waited
// for.
//
// The hook must stay small, so this package uses the standard library and
// system calls alone.
package attachsocket
