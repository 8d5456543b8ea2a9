// Program manifests renders the plain manifests in deployments/manifests from
// the chart, and the table of its values from the comments in values.yaml, so
// that all always say the same. It is run by "make manifests";
// with -check it changes nothing and tells which files are out of date.
package main
