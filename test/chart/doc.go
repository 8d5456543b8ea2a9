// Package chart tests the chart's life on a real cluster with the real helm: from
// install over upgrades and a rollback, under running pods, to an uninstall that
// leaves nothing, neither in the API nor on the node.
package chart
