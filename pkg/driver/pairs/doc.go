// Package pairs makes composite devices: each GPU together with a VF of the NIC
// beside it, so that a claim gets both with one request, or neither.
//
// It is one pure function, [Options.Join], from what the families have found
// and what claims have of it to the devices of the pool in their order, with
// the counters by which the scheduler never gives away anything twice. It
// touches no hardware but to look up where things sit.
package pairs
