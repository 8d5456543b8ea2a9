// Package controller tests the controller beside a real API server, scheduler
// and controller manager: alone, killed between any two of its writes, two at
// once, against kube-scheduler, and as it is deployed, on a node with a simulated
// machine. Most nodes here are only published: they are there in the API, with
// devices, but no kubelet runs pods on them.
package controller
