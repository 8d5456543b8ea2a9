// Package prefer chooses which of a node's free devices a container had best get
// together. On machines whose GPUs are joined by NVSwitch every link is as good
// as any other, so what counts is the NUMA node; virtual functions are best
// spread over the ports of that node.
package prefer
