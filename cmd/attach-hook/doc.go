// Command attach-hook is run by the container runtime, on the host, before a
// container starts that uses a claim with network devices. It hands the
// container's network namespace to the kubelet plugin and waits until all
// devices of the claim are there. If they are not, it fails, and with it the
// container: a pod never runs without the interface that it asked for.
//
// A container that starts again in a sandbox that has its devices needs no
// plugin.
package main
