// Package taintrules knows which taints the DeviceTaintRules of the cluster give
// to a device that they select by its name.
//
// Kubernetes applies such a rule to that one device, and knows nothing of others
// that have it as a part. Who publishes those asks here, and is told when the
// answer may be another. Rules are small and few, so all are watched, wherever
// the API server serves them; nothing that is wrong with that keeps anybody from
// publishing devices.
package taintrules
