// Package nodelabels labels the plugin's own Node with the model and the number
// of its GPUs, so that pods that know nothing of claims can choose nodes by
// them. The labels are owned in the way of server-side apply: what somebody else
// has set stays, and is told; what was set here goes when it is no longer so. A
// driver that is away for a moment takes no label away.
package nodelabels
