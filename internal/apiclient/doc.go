// Package apiclient finds the API server for all our programs in one way: by a
// kubeconfig where a flag names one, and else as the service account of the pod
// that the program runs in. It asks what a server serves, which differs between
// versions of Kubernetes.
package apiclient
