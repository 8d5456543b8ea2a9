// Package claimstatus writes into the status of claims what has become of their
// devices, for people and other controllers to read: in which pod a device is and
// under which name, why it is in none, and how near to each other the claim's GPUs
// and VFs are.
//
// It happens behind everything else: an API server that is silent holds nobody
// up. What is written is read from the claim's record at that moment, so the
// latest always wins, whichever instance of the plugin writes.
package claimstatus
