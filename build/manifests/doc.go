// Program manifests renders the plain manifests in deployments/manifests from
// the chart, so that both always say the same. It is run by "make manifests";
// with -check it changes nothing and tells which files are out of date.
package main
