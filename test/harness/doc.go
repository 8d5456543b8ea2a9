// Package harness puts the driver onto a real cluster of one node and waits
// for things to happen there: what the end-to-end tests, the demo and the tests
// of the chart share.
//
// It talks to the cluster as users do, by kubectl and the API, and never looks
// inside the driver. What a person needs to know when something failed is
// gathered by [Cluster.Report].
package harness
