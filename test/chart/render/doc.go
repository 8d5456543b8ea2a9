// Package render tests what helm makes of the chart, without a cluster: that
// objects are what every supported version of Kubernetes takes, that each value
// has the effect that its comment promises, and that wrong values are refused in
// words that help.
package render
