// Package plugin runs the kubelet plugins of DRA drivers, and our controller, as
// plain processes of this machine. Plugins have folders and a node of their own,
// so that a benchmark can play kubelet towards any of them.
package plugin
