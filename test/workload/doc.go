// Command workload stands in for the images that the examples name, in a test
// cluster that reaches no registry. It is several programs in one, chosen by
// the name it is called by: cat, ip, ls, ping, python, sleep and stubborn.
//
// It does no work of its own; it shows what a container was given, so that
// tests can compare that with what was claimed. nvidia-smi is not among its
// programs: that one must come from the driver, as on a real machine.
package main
