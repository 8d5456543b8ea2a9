// Package namespace makes and enters the Linux namespaces of a cluster. Each
// role of a cluster lives in a PID, mount, network, UTS and IPC namespace of
// its own, whose PID 1 is this program, called again as `cluster
// namespace-init <state folder> <role>`. Ending that process ends the role
// whole: the kernel takes its processes, mounts and links with it.
package namespace
