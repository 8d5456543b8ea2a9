// Command demo shows the driver at work: it brings up a real cluster of one
// node that plays a DGX H200, installs the driver there, runs the GPU test job and
// two pods with virtual functions, and prints what each of them saw. It is what `make demo` runs.
//
// DEMO_KEEP=1 leaves the cluster up. Otherwise nothing is left behind, also
// after Ctrl-C or a failure. A demo that finds a cluster kept, or another demo at
// work, touches nothing and ends with an error.
package main
