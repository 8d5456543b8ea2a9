// Package kubelet asks kubelet which pods have which devices. Kubelet tells a
// device plugin when it gives a device to a container, and never when it takes it
// back: its pod-resources API is the only one that knows.
package kubelet
