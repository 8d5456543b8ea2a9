// Package rivals has both allocators, kube-scheduler and the controller, give
// away the devices of the same nodes while these devices change hands, and finds
// every device that two claims had at the same moment.
package rivals
