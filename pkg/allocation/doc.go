// Package allocation allocates the claims of managed classes, which
// kube-scheduler cannot: each on the node and the devices that fit it best, and
// gangs of claims all or none.
//
// A [Controller] knows the cluster from watches alone, and polls nothing. It
// chooses under one lock, where it also sees what it has chosen before and not
// written yet, and writes outside of it. Whatever it decides is in the API
// before it counts: a controller that ends between any two writes leaves claims
// from which the next one goes on.
package allocation
