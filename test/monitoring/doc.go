// Package monitoring checks what admins are given to watch the driver with:
// that alerts fire when they should, say what is true, and have a page; that
// they and the dashboard ask for metrics that our programs have; and that the
// chart makes of them what Prometheus and Grafana take.
package monitoring
