// Package draclient is kubelet's part of dynamic resource allocation, without
// kubelet: it finds and registers a driver's plugin through its socket, has
// claims prepared and unprepared, and makes claims in an API server that look
// as if the scheduler had allocated them.
//
// It knows nothing about the driver behind the socket, so that any driver can
// be tested and measured with it.
package draclient
