// Package noclaims holds the tests of the driver on a cluster that has no claims:
// Kubernetes before 1.34, where the device plugin API serves everything.
//
// The driver is installed by the chart, as users of such clusters do it.
package noclaims
