// Package claimwrite writes allocations into claims and takes them back, so that
// after each write, whatever comes of the next one, the claim is one that
// kube-scheduler, kube-controller-manager and another controller understand.
package claimwrite
