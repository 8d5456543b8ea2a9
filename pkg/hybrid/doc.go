// Package hybrid does in the controller what a cluster with hybrid nodes needs
// around the driver: network plugins stay on their side of the cluster
// ([cniaffinity]), and namespaces have the credentials of the registry
// ([pullsecret]). It follows the file that configures both.
package hybrid
