// Package cgroup makes and removes the cluster's top cgroup, below which
// kubelet puts its pods, in every hierarchy of cgroup v1 and in v2.
package cgroup
