// Package kerneltest is a kernel in memory, for tests: network namespaces,
// interfaces and RDMA devices that obey the rules of the real one which matter
// when they are moved, named and set, and that refuse what a test wants refused.
package kerneltest
