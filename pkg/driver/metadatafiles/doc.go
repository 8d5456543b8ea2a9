// Package metadatafiles keeps the files that tell containers what their devices
// are. The kubeletplugin helper writes one for each request of a claim, after the
// claim was prepared, and removes them when kubelet unprepares it. It knows
// nothing of a claim that is released without kubelet, nor of what a crash left,
// and names their folders after claims, which may have had namesakes: so this
// package says how they are written, and removes them.
package metadatafiles
